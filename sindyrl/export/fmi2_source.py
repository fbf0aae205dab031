"""The C between the FMI 2.0 functions and an exported map: one file, the same for every map but for its first lines.

value references    0 ...                 states, then inputs: the arguments of the map
                    number of arguments + k    result k: time derivatives (or next states, not published), then outputs
"""

from __future__ import annotations

from sindyrl.export.artifact import Artifact

MODEL_EXCHANGE, CO_SIMULATION = "fmi2ModelExchange", "fmi2CoSimulation"

_SETTINGS = """{banner}
#include "fmi2Functions.h"
#include "{name}.h"

#define MODEL {name}
#define MODEL_NAME "{name}"
#define MODEL_GUID "{guid}"
#define MODEL_KIND {kind}
#define PERIOD {period} /* seconds between updates of the states, 0 for one update in every step */
typedef {number} number_t;
enum {{ STATES = {states}, ARGUMENTS = {arguments}, RESULTS = {results} }};
static const number_t start_values[{size}] = {{{start}}}; /* states, inputs */
"""

_TEXT = r"""
typedef struct {
    fmi2CallbackFunctions callbacks;
    number_t arguments[ARGUMENTS + 1];
    number_t results[RESULTS];
    fmi2Boolean stale; /* results do not belong to these arguments */
} Instance;

static void start(Instance *self) {
    for (int i = 0; i < ARGUMENTS; i++) {
        self->arguments[i] = start_values[i];
    }
    self->stale = fmi2True;
}

static void refresh(Instance *self) {
    if (self->stale) {
        MODEL(self->arguments, self->results);
        self->stale = fmi2False;
    }
}

static void complain(const fmi2CallbackFunctions *callbacks, const char *message) {
    if (callbacks->logger) {
        callbacks->logger(callbacks->componentEnvironment, MODEL_NAME, fmi2Error, "logStatusError", message);
    }
}

static fmi2Status refuse(fmi2Component c, const char *message) {
    complain(&((Instance *)c)->callbacks, message);
    return fmi2Error;
}

/* ---- common functions */

const char *fmi2GetTypesPlatform(void) {
    return fmi2TypesPlatform;
}

const char *fmi2GetVersion(void) {
    return "2.0";
}

fmi2Status fmi2SetDebugLogging(fmi2Component c, fmi2Boolean on, size_t n, const fmi2String categories[]) {
    (void)c, (void)on, (void)n, (void)categories;
    return fmi2OK;
}

static int same_text(const char *a, const char *b) {
    while (*a && *a == *b) {
        a++, b++;
    }
    return *a == *b;
}

fmi2Component fmi2Instantiate(fmi2String name, fmi2Type type, fmi2String guid, fmi2String resources,
                              const fmi2CallbackFunctions *callbacks, fmi2Boolean visible, fmi2Boolean logging) {
    (void)name, (void)resources, (void)visible, (void)logging;
    if (!callbacks || !callbacks->allocateMemory || !callbacks->freeMemory) {
        return NULL;
    }
    if (type != MODEL_KIND || !guid || !same_text(guid, MODEL_GUID)) {
        complain(callbacks, "The type or the GUID is not that of modelDescription.xml.");
        return NULL;
    }
    Instance *self = callbacks->allocateMemory(1, sizeof(Instance));
    if (self) {
        self->callbacks = *callbacks;
        start(self);
    }
    return self;
}

void fmi2FreeInstance(fmi2Component c) {
    if (c) {
        ((Instance *)c)->callbacks.freeMemory(c);
    }
}

fmi2Status fmi2SetupExperiment(fmi2Component c, fmi2Boolean has_tolerance, fmi2Real tolerance, fmi2Real start_time,
                               fmi2Boolean has_stop_time, fmi2Real stop_time) {
    (void)c, (void)has_tolerance, (void)tolerance, (void)start_time, (void)has_stop_time, (void)stop_time;
    return fmi2OK;
}

fmi2Status fmi2EnterInitializationMode(fmi2Component c) {
    (void)c;
    return fmi2OK;
}

fmi2Status fmi2ExitInitializationMode(fmi2Component c) {
    (void)c;
    return fmi2OK;
}

fmi2Status fmi2Terminate(fmi2Component c) {
    (void)c;
    return fmi2OK;
}

fmi2Status fmi2Reset(fmi2Component c) {
    start(c);
    return fmi2OK;
}

fmi2Status fmi2GetReal(fmi2Component c, const fmi2ValueReference vr[], size_t n, fmi2Real value[]) {
    Instance *self = c;
    for (size_t i = 0; i < n; i++) {
        if (vr[i] >= ARGUMENTS + RESULTS) {
            return refuse(c, "fmi2GetReal: unknown value reference.");
        }
        const int index = (int)vr[i];
        if (index < ARGUMENTS) {
            value[i] = (fmi2Real)self->arguments[index];
        } else {
            refresh(self);
            value[i] = (fmi2Real)self->results[index - ARGUMENTS];
        }
    }
    return fmi2OK;
}

fmi2Status fmi2SetReal(fmi2Component c, const fmi2ValueReference vr[], size_t n, const fmi2Real value[]) {
    Instance *self = c;
    for (size_t i = 0; i < n; i++) {
        const int index = vr[i] < ARGUMENTS + RESULTS ? (int)vr[i] : ARGUMENTS;
        if (index >= ARGUMENTS) {
            return refuse(c, "fmi2SetReal: only states and inputs can be set.");
        }
        self->arguments[index] = (number_t)value[i];
        self->stale = fmi2True;
    }
    return fmi2OK;
}

/* There are no variables of other types. */
#define NO_VARIABLES(function, argument) \
    fmi2Status function(fmi2Component c, const fmi2ValueReference vr[], size_t n, argument) { \
        (void)vr, (void)value; \
        return n == 0 ? fmi2OK : refuse(c, #function ": this model has real variables only."); \
    }
NO_VARIABLES(fmi2GetInteger, fmi2Integer value[])
NO_VARIABLES(fmi2GetBoolean, fmi2Boolean value[])
NO_VARIABLES(fmi2GetString, fmi2String value[])
NO_VARIABLES(fmi2SetInteger, const fmi2Integer value[])
NO_VARIABLES(fmi2SetBoolean, const fmi2Boolean value[])
NO_VARIABLES(fmi2SetString, const fmi2String value[])

fmi2Status fmi2GetFMUstate(fmi2Component c, fmi2FMUstate *state) {
    Instance *self = c;
    if (!*state) {
        *state = self->callbacks.allocateMemory(1, sizeof(Instance));
    }
    if (!*state) {
        return refuse(c, "fmi2GetFMUstate: no memory.");
    }
    *(Instance *)*state = *self;
    return fmi2OK;
}

fmi2Status fmi2SetFMUstate(fmi2Component c, fmi2FMUstate state) {
    *(Instance *)c = *(Instance *)state;
    return fmi2OK;
}

fmi2Status fmi2FreeFMUstate(fmi2Component c, fmi2FMUstate *state) {
    if (*state) {
        ((Instance *)c)->callbacks.freeMemory(*state);
        *state = NULL;
    }
    return fmi2OK;
}

fmi2Status fmi2SerializedFMUstateSize(fmi2Component c, fmi2FMUstate state, size_t *size) {
    (void)state, (void)size;
    return refuse(c, "States are not serialized.");
}

fmi2Status fmi2SerializeFMUstate(fmi2Component c, fmi2FMUstate state, fmi2Byte bytes[], size_t size) {
    (void)state, (void)bytes, (void)size;
    return refuse(c, "States are not serialized.");
}

fmi2Status fmi2DeSerializeFMUstate(fmi2Component c, const fmi2Byte bytes[], size_t size, fmi2FMUstate *state) {
    (void)bytes, (void)size, (void)state;
    return refuse(c, "States are not serialized.");
}

fmi2Status fmi2GetDirectionalDerivative(fmi2Component c, const fmi2ValueReference unknown[], size_t n_unknown,
                                        const fmi2ValueReference known[], size_t n_known, const fmi2Real change[],
                                        fmi2Real result[]) {
    (void)unknown, (void)n_unknown, (void)known, (void)n_known, (void)change, (void)result;
    return refuse(c, "Directional derivatives are not provided.");
}

/* ---- co-simulation */

fmi2Status fmi2DoStep(fmi2Component c, fmi2Real time, fmi2Real step, fmi2Boolean no_return) {
    Instance *self = c;
    (void)time, (void)no_return;
    if (MODEL_KIND != fmi2CoSimulation) {
        return refuse(c, "fmi2DoStep: this FMU is for model exchange.");
    }
    if (STATES > 0) {
        const fmi2Real exact = PERIOD > 0.0 ? step / PERIOD : 1.0;
        const long updates = exact < 1e9 ? (long)(exact + 0.5) : 0;
        const fmi2Real excess = exact - (fmi2Real)updates;
        if (updates < 1 || excess > 1e-6 || excess < -1e-6) {
            return refuse(c, "fmi2DoStep: the step must be a multiple of the model's period, see DefaultExperiment.");
        }
        for (long update = 0; update < updates; update++) {
            refresh(self);
            for (int i = 0; i < STATES; i++) {
                self->arguments[i] = self->results[i];
            }
            self->stale = fmi2True;
        }
    }
    return fmi2OK;
}

fmi2Status fmi2CancelStep(fmi2Component c) {
    return refuse(c, "fmi2CancelStep: steps are never pending.");
}

fmi2Status fmi2SetRealInputDerivatives(fmi2Component c, const fmi2ValueReference vr[], size_t n,
                                       const fmi2Integer order[], const fmi2Real value[]) {
    (void)vr, (void)n, (void)order, (void)value;
    return refuse(c, "Inputs are not interpolated.");
}

fmi2Status fmi2GetRealOutputDerivatives(fmi2Component c, const fmi2ValueReference vr[], size_t n,
                                        const fmi2Integer order[], fmi2Real value[]) {
    (void)vr, (void)n, (void)order, (void)value;
    return refuse(c, "Derivatives of outputs are not provided.");
}

#define NO_STATUS(function, type) \
    fmi2Status function(fmi2Component c, const fmi2StatusKind kind, type *value) { \
        (void)kind, (void)value; \
        return refuse(c, #function ": steps are never pending."); \
    }
NO_STATUS(fmi2GetStatus, fmi2Status)
NO_STATUS(fmi2GetRealStatus, fmi2Real)
NO_STATUS(fmi2GetIntegerStatus, fmi2Integer)
NO_STATUS(fmi2GetBooleanStatus, fmi2Boolean)
NO_STATUS(fmi2GetStringStatus, fmi2String)

/* ---- model exchange */

fmi2Status fmi2EnterEventMode(fmi2Component c) {
    (void)c;
    return fmi2OK;
}

fmi2Status fmi2NewDiscreteStates(fmi2Component c, fmi2EventInfo *info) {
    (void)c;
    info->newDiscreteStatesNeeded = fmi2False;
    info->terminateSimulation = fmi2False;
    info->nominalsOfContinuousStatesChanged = fmi2False;
    info->valuesOfContinuousStatesChanged = fmi2False;
    info->nextEventTimeDefined = fmi2False;
    info->nextEventTime = 0.0;
    return fmi2OK;
}

fmi2Status fmi2EnterContinuousTimeMode(fmi2Component c) {
    (void)c;
    return fmi2OK;
}

fmi2Status fmi2CompletedIntegratorStep(fmi2Component c, fmi2Boolean no_return, fmi2Boolean *event, fmi2Boolean *end) {
    (void)c, (void)no_return;
    *event = fmi2False;
    *end = fmi2False;
    return fmi2OK;
}

fmi2Status fmi2SetTime(fmi2Component c, fmi2Real time) {
    (void)c, (void)time;
    return fmi2OK;
}

fmi2Status fmi2SetContinuousStates(fmi2Component c, const fmi2Real x[], size_t n) {
    Instance *self = c;
    if (n != STATES) {
        return refuse(c, "fmi2SetContinuousStates: wrong number of states.");
    }
    for (int i = 0; i < STATES; i++) {
        self->arguments[i] = (number_t)x[i];
    }
    self->stale = fmi2True;
    return fmi2OK;
}

fmi2Status fmi2GetContinuousStates(fmi2Component c, fmi2Real x[], size_t n) {
    Instance *self = c;
    if (n != STATES) {
        return refuse(c, "fmi2GetContinuousStates: wrong number of states.");
    }
    for (int i = 0; i < STATES; i++) {
        x[i] = (fmi2Real)self->arguments[i];
    }
    return fmi2OK;
}

fmi2Status fmi2GetDerivatives(fmi2Component c, fmi2Real derivatives[], size_t n) {
    Instance *self = c;
    if (n != STATES) {
        return refuse(c, "fmi2GetDerivatives: wrong number of states.");
    }
    refresh(self);
    for (int i = 0; i < STATES; i++) {
        derivatives[i] = (fmi2Real)self->results[i];
    }
    return fmi2OK;
}

fmi2Status fmi2GetNominalsOfContinuousStates(fmi2Component c, fmi2Real nominal[], size_t n) {
    (void)c;
    for (size_t i = 0; i < n; i++) {
        nominal[i] = 1.0;
    }
    return fmi2OK;
}

fmi2Status fmi2GetEventIndicators(fmi2Component c, fmi2Real indicators[], size_t n) {
    (void)indicators;
    return n == 0 ? fmi2OK : refuse(c, "fmi2GetEventIndicators: there are none.");
}
"""


def kind_of(artifact: Artifact) -> str:
    """Model exchange for time derivatives, co-simulation for everything else."""
    return MODEL_EXCHANGE if artifact.derivatives else CO_SIMULATION


def fmi2_source(artifact: Artifact, guid: str, start: list[float]) -> str:
    """The C file; ``start`` are the first values of the arguments."""
    form = artifact.form
    settings = _SETTINGS.format(
        banner="/* " + "\n * ".join(artifact.banner()) + " */",
        name=artifact.name,
        guid=guid,
        kind=kind_of(artifact),
        period=repr(0.0 if artifact.dt is None else float(artifact.dt)),
        number=artifact.c_type,
        states=len(artifact.states),
        arguments=len(form.inputs),
        results=len(form.outputs),
        size=len(form.inputs) + 1,  # C has no empty arrays
        start=", ".join(f"(number_t){float(value)!r}" for value in [*start, 0.0]),
    )
    return settings + _TEXT
