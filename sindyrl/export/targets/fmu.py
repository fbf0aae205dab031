"""A source FMU of FMI 2.0: ``NAME.fmu`` for Dymola, OpenModelica, FMPy and every other importer that compiles sources.

A map is an FMU for co-simulation: outputs follow the inputs, and states are updated once per call period (the
communication step is a multiple of it; without a period, once per step). Time derivatives are integrated by the
importer: model exchange. ``fmpy.build.build_platform_binary`` adds the binary of a machine.
The standard's own headers come with the importer, as the standard says. An importer that links several FMUs into one
program defines ``FMI2_FUNCTION_PREFIX``. FMI 3 is not written.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

from sindyrl.export.artifact import FREEDOM, Artifact, starting_value
from sindyrl.export.fmi2_source import MODEL_EXCHANGE, fmi2_source, kind_of
from sindyrl.export.source import MARK
from sindyrl.symbolic_map import Signal
from sindyrl.units import parse_unit

CHECK = "FMPy validates it, builds the binary, simulates; the outputs are compared with the map."

_BASE_UNITS = ("kg", "m", "s", "A", "K", "mol", "cd")
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # of the zip format; a date would make equal artifacts differ


def files(artifact: Artifact) -> dict[str, str | bytes]:
    """``NAME.fmu``, an archive with fixed dates. Raises ValueError for fixed point: FMI knows doubles."""
    if not artifact.number.startswith("float"):
        raise ValueError(f'`target="fmu"` needs `number="float32"` or "float64". Got {artifact.number!r}.')
    name, self_test = artifact.name, artifact.file_names[2]
    texts = {file: text for file, text in artifact.texts.items() if file != self_test}
    guid = _guid(model_description(artifact, ""), texts)
    texts[f"{name}_fmu.c"] = fmi2_source(artifact, guid, _start(artifact))
    content = {"modelDescription.xml": model_description(artifact, guid)}
    content |= {f"sources/{file}": text for file, text in texts.items()}
    return {f"{name}.fmu": _archive(content)}


def model_description(artifact: Artifact, guid: str) -> str:
    """The text of modelDescription.xml."""
    exchange = kind_of(artifact) == MODEL_EXCHANGE
    sources = [*artifact.sources, f"{artifact.name}_fmu.c"]
    variables, outputs, derivatives, calculated = _variables(artifact)
    step = "" if artifact.dt is None else f"  <DefaultExperiment stepSize={_number(artifact.dt)}/>\n"
    listed = "".join(f"      <File name={quoteattr(file)}/>\n" for file in sources)
    kind = "ModelExchange" if exchange else "CoSimulation"
    variable = str(not artifact.states or artifact.dt is None).lower()
    any_step = "" if exchange else f' canHandleVariableCommunicationStepSize="{variable}"'
    unknowns = [("Outputs", outputs), ("Derivatives", derivatives), ("InitialUnknowns", calculated)]
    return "".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>\n',
            f"<!-- {' '.join(artifact.banner())} -->\n",
            f'<fmiModelDescription fmiVersion="2.0" modelName={quoteattr(artifact.name)} guid={quoteattr(guid)}',
            f" description={quoteattr(artifact.title)} version={quoteattr(artifact.release)}",
            f" license={quoteattr(FREEDOM)} generationTool={quoteattr(f'sindyrl {artifact.version}')}",
            ' variableNamingConvention="flat" numberOfEventIndicators="0">\n',
            f'  <{kind} modelIdentifier={quoteattr(artifact.name)} canGetAndSetFMUstate="true"{any_step}>\n',
            f"    <SourceFiles>\n{listed}    </SourceFiles>\n  </{kind}>\n",
            _unit_definitions(artifact),
            '  <LogCategories>\n    <Category name="logStatusError"/>\n  </LogCategories>\n',
            step,
            "  <ModelVariables>\n",
            *variables,
            "  </ModelVariables>\n  <ModelStructure>\n",
            *(_unknowns(element, indices) for element, indices in unknowns if indices),
            "  </ModelStructure>\n</fmiModelDescription>\n",
        ]
    )


def _variables(artifact: Artifact) -> tuple[list[str], list[int], list[int], list[int]]:
    """Elements of ModelVariables, and one-based indices of outputs, of derivatives, and of what is calculated."""
    form, count = artifact.form, len(artifact.states)
    exchange = kind_of(artifact) == MODEL_EXCHANGE
    variability = "discrete" if count and not exchange else "continuous"
    start = _start(artifact)
    taken: set[str] = set()
    lines: list[str] = []
    outputs: list[int] = []
    derivatives: list[int] = []
    calculated: list[int] = []
    for index, signal in enumerate(form.inputs):
        is_state = index < count
        causality = 'output" initial="exact' if is_state else "input"
        name = _unused(signal.name, taken)
        lines.append(_variable(name, signal, index, causality, variability, start=start[index], ends=True))
        outputs += [len(lines)] * is_state
    for index, signal in enumerate(form.outputs):
        if index < count and not exchange:
            continue  # the next states are the states, one step later
        causality = "local" if index < count else "output"
        extra = f' derivative="{index + 1}"' if index < count else ""
        reference = len(form.inputs) + index
        kind = f'{causality}" initial="calculated'
        lines.append(_variable(_unused(signal.name, taken), signal, reference, kind, variability, extra=extra))
        (derivatives if index < count else outputs).append(len(lines))
        calculated.append(len(lines))
    return lines, outputs, derivatives, calculated


def _unused(name: str, taken: set[str]) -> str:
    """An input and an output of a map may share a name; variables of an FMU may not."""
    while name in taken:
        name += "_out"
    taken.add(name)
    return name


def _variable(
    name: str,
    signal: Signal,
    reference: int,
    causality: str,
    variability: str,
    *,
    start: float | None = None,
    ends: bool = False,
    extra: str = "",
) -> str:
    # Ranges of outputs are left out: importers that check them would stop at a bound rounded to float32.
    unit = f" unit={quoteattr(signal.unit)}" if _has_unit(signal) else ""
    limits = [
        (f" {key}={_number(end)}")
        for key, end in (("min", signal.lower), ("max", signal.upper))
        if abs(end) < float("inf")
    ]
    first = "" if start is None else f" start={_number(start)}"
    head = f'    <ScalarVariable name={quoteattr(name)} valueReference="{reference}"'
    real = f"<Real{unit}{''.join(limits) if ends else ''}{first}{extra}/>"
    return f'{head} causality="{causality}" variability="{variability}">\n      {real}\n    </ScalarVariable>\n'


def _unknowns(element: str, indices: list[int]) -> str:
    listed = "".join(f'      <Unknown index="{index}"/>\n' for index in indices)
    return f"    <{element}>\n{listed}    </{element}>\n"


def _unit_definitions(artifact: Artifact) -> str:
    signals = (*artifact.form.inputs, *artifact.form.outputs)
    units = sorted({signal.unit for signal in signals if _has_unit(signal)})
    if not units:
        return ""
    return "  <UnitDefinitions>\n" + "".join(map(_unit, units)) + "  </UnitDefinitions>\n"


def _unit(text: str) -> str:
    """A unit by name, and in terms of SI where this library understands it and FMI can say it."""
    try:
        unit = parse_unit(text)
    except ValueError:
        unit = None
    if unit is None or any(base not in _BASE_UNITS or power.denominator != 1 for base, power in unit.powers):
        return f"    <Unit name={quoteattr(text)}/>\n"
    powers = "".join(f' {base}="{power.numerator}"' for base, power in unit.powers)
    factor = "" if unit.scale == 1.0 else f" factor={_number(unit.scale)}"
    return f"    <Unit name={quoteattr(text)}>\n      <BaseUnit{powers}{factor}/>\n    </Unit>\n"


def _has_unit(signal: Signal) -> bool:
    return bool(signal.unit.strip())


def _start(artifact: Artifact) -> list[float]:
    inputs = artifact.form.inputs[len(artifact.states) :]
    return [*map(float, artifact.initial), *(starting_value(signal) for signal in inputs)]


def _number(value: float) -> str:
    return f'"{float(value)!r}"'


def _guid(description: str, texts: Mapping[str, str]) -> str:
    """Changes with anything that an importer could notice."""
    digest = hashlib.sha256(repr([description, sorted(texts.items())]).encode()).hexdigest()
    return "{" + "-".join([digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]]) + "}"


def _archive(content: Mapping[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.comment = MARK.encode()
        for path in sorted(content):
            entry = zipfile.ZipInfo(path, _EARLIEST)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content[path].encode("utf-8"))
    return stream.getvalue()
