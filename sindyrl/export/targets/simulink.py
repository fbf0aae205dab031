"""A Level-2 C S-function for Simulink: ``build_sfun_NAME`` in MATLAB, then ``sfun_NAME`` in an S-Function block.

One input port and one output port of doubles, in the order of the map's signals. A map with a call period becomes a
block of that sample time; states of a stateful map are the block's discrete states, or its continuous ones if the map
gives their derivatives.
The same source serves Simulink Coder, which includes ``cg_sfun.h`` in place of MATLAB's ``simulink.c``.
"""

from __future__ import annotations

from sindyrl.export.artifact import Artifact

CHECK = "Compiled with warnings as errors against a stand-in of simstruc.h and executed; MATLAB is not in the tests."

_TEXT = """{banner}
#define S_FUNCTION_NAME sfun_{name}
#define S_FUNCTION_LEVEL 2

#include "simstruc.h"
#include "{name}.h"

enum {{ STATES = {states}, INPUTS = {inputs}, OUTPUTS = {outputs}, RESULTS = {results} }};
{initial}
/* The whole map at the block's present states and inputs. */
static void evaluate(SimStruct *S, {kind} results[RESULTS]) {{
    {kind} arguments[{arguments}] = {{ 0 }};
{read_states}{read_inputs}    {name}(arguments, results);
}}

static void mdlInitializeSizes(SimStruct *S) {{
    ssSetNumSFcnParams(S, 0);
    if (ssGetNumSFcnParams(S) != ssGetSFcnParamsCount(S)) {{
        return;
    }}
    ssSetNumContStates(S, {continuous});
    ssSetNumDiscStates(S, {discrete});
    if (!ssSetNumInputPorts(S, {input_ports})) {{
        return;
    }}
{input_port}    if (!ssSetNumOutputPorts(S, {output_ports})) {{
        return;
    }}
{output_port}    ssSetNumSampleTimes(S, 1);
    ssSetOptions(S, SS_OPTION_EXCEPTION_FREE_CODE);
}}

static void mdlInitializeSampleTimes(SimStruct *S) {{
    ssSetSampleTime(S, 0, {sample_time});
    ssSetOffsetTime(S, 0, 0.0);
}}
{initialize}
static void mdlOutputs(SimStruct *S, int_T tid) {{
{outputs_body}}}
{advance}
static void mdlTerminate(SimStruct *S) {{
    UNUSED_ARG(S);
}}

#ifdef MATLAB_MEX_FILE
#include "simulink.c"
#else
#include "cg_sfun.h"
#endif
"""

_BUILD = """{banner}
% Compiles the S-function sfun_{name} in this folder.
here = fileparts(mfilename('fullpath'));
sources = fullfile(here, {{{sources}}});
mex('-outdir', here, ['-I' here], sources{{:}})
"""


def files(artifact: Artifact) -> dict[str, str | bytes]:
    """``sfun_NAME.c``, ``build_sfun_NAME.m``, and the C.

    Raises ValueError for fixed point: the block's signals are doubles.
    """
    if not artifact.number.startswith("float"):
        raise ValueError(f'`target="simulink"` needs `number="float32"` or "float64". Got {artifact.number!r}.')
    name = artifact.name
    quoted = ", ".join(f"'{file}'" for file in (f"sfun_{name}.c", *artifact.sources))
    build = _BUILD.format(banner="\n".join(artifact.banner("% ")), name=name, sources=quoted)
    return {f"sfun_{name}.c": _s_function(artifact), f"build_sfun_{name}.m": build, **artifact.texts}


def _s_function(artifact: Artifact) -> str:
    form, n = artifact.form, len(artifact.states)
    inputs, outputs = len(form.inputs) - n, len(form.outputs) - n
    continuous = artifact.derivatives
    getter = "ssGetContStates" if continuous else "ssGetRealDiscStates"
    states, initial = _state_methods(artifact, getter)
    kind = artifact.c_type
    read_states = f"""    const real_T *x = {getter}(S);
    for (int_T index = 0; index < STATES; index++) {{
        arguments[index] = ({kind})x[index];
    }}
"""
    read_inputs = f"""    InputRealPtrsType u = ssGetInputPortRealSignalPtrs(S, 0);
    for (int_T index = 0; index < INPUTS; index++) {{
        arguments[STATES + index] = ({kind})*u[index];
    }}
"""
    input_port = f"""    ssSetInputPortWidth(S, 0, INPUTS);
    ssSetInputPortDirectFeedThrough(S, 0, {int(outputs > 0)});
"""
    write_outputs = f"""    {kind} results[RESULTS];
    real_T *y = ssGetOutputPortRealSignal(S, 0);
    evaluate(S, results);
    for (int_T index = 0; index < OUTPUTS; index++) {{
        y[index] = (real_T)results[STATES + index];
    }}
    UNUSED_ARG(tid);
"""
    show_states = f"""    const real_T *x = {getter}(S);
    real_T *y = ssGetOutputPortRealSignal(S, 0);
    for (int_T index = 0; index < STATES; index++) {{
        y[index] = x[index];
    }}
    UNUSED_ARG(tid);
"""
    inherited = "CONTINUOUS_SAMPLE_TIME" if continuous else "INHERITED_SAMPLE_TIME"
    return _TEXT.format(
        banner="/* " + "\n * ".join(artifact.banner()) + " */",
        name=artifact.name,
        states=n,
        inputs=inputs,
        outputs=outputs or n,  # without outputs of its own, the block shows its states
        results=len(form.outputs),
        kind=kind,
        arguments=max(len(form.inputs), 1),
        initial=initial,
        read_states=read_states if n else "",
        read_inputs=read_inputs if inputs else ("" if n else "    UNUSED_ARG(S);\n"),
        continuous="STATES" if continuous else "0",
        discrete="STATES" if n and not continuous else "0",
        input_ports=1 if inputs else 0,
        input_port=input_port if inputs else "",
        output_ports=1,
        output_port="    ssSetOutputPortWidth(S, 0, OUTPUTS);\n",
        sample_time=inherited if artifact.dt is None else repr(artifact.dt),
        initialize=states[0],
        outputs_body=write_outputs if outputs else show_states,
        advance=states[1],
    )


def _state_methods(artifact: Artifact, getter: str) -> tuple[tuple[str, str], str]:
    """Texts of (mdlInitializeConditions, mdlUpdate or mdlDerivatives), and of the table of initial values."""
    if not artifact.states:
        return ("", ""), ""
    table = f"static const real_T initial[STATES] = {{{', '.join(map(repr, map(float, artifact.initial)))}}};\n"
    initialize = f"""
#define MDL_INITIALIZE_CONDITIONS
static void mdlInitializeConditions(SimStruct *S) {{
    real_T *x = {getter}(S);
    for (int_T index = 0; index < STATES; index++) {{
        x[index] = initial[index];
    }}
}}
"""
    discrete = not artifact.derivatives
    define, method = ("MDL_UPDATE", "mdlUpdate") if discrete else ("MDL_DERIVATIVES", "mdlDerivatives")
    target, source = ("x", getter) if discrete else ("dx", "ssGetdX")
    advance = f"""
#define {define}
static void {method}(SimStruct *S{", int_T tid" if discrete else ""}) {{
    {artifact.c_type} results[RESULTS];
    real_T *{target} = {source}(S);
    evaluate(S, results);
    for (int_T index = 0; index < STATES; index++) {{
        {target}[index] = (real_T)results[index];
    }}
{"    UNUSED_ARG(tid);" + chr(10) if discrete else ""}}}
"""
    return (initialize, advance), table
