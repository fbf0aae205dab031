r"""Closed forms with memory: filters, delays, observers. Everything that remembers is one pure map and a start.

    (state, input)  ->  (next state, output)

so it is simulated, compared, bounded and exported as any other map. In C the memory is a struct that the caller owns:

    policy_state_t memory;
    policy_reset(&memory);
    policy_step(&memory, in, out);        every `dt` seconds

References: Simon, *Optimal State Estimation*, Wiley 2006, sections 6.1 (sequential updates) and 13.2 (extended Kalman
filter); Astrom and Hagglund, *Advanced PID Control*, ISA 2006, section 3.4 (filtered derivative).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from sindyrl.calculus import differentiate
from sindyrl.emit.c import TYPES, Number, literal
from sindyrl.expression import maximum, piecewise
from sindyrl.node import Constant, Node, Variable
from sindyrl.number_check import check_number, whole
from sindyrl.symbolic_map import Signal, SymbolicMap
from sindyrl.traversal import substitute


@dataclasses.dataclass(frozen=True)
class StatefulMap:
    """A map with memory.

    map : inputs are the states, then the inputs; outputs are the next states, named ``<state>_next``, then the outputs
    initial : (state,) at reset      dt : seconds between steps, None if it does not matter

    Raises ValueError if the map's signals do not fit.
    """

    map: SymbolicMap
    initial: tuple[float, ...]
    dt: float | None = None

    def __post_init__(self) -> None:
        n = len(self.initial)
        object.__setattr__(self, "initial", tuple(float(value) for value in self.initial))
        if not np.isfinite(self.initial).all():
            raise ValueError(f"`StatefulMap(initial=...)` must be finite. Got {self.initial}.")
        if self.dt is not None and not 0.0 < self.dt < math.inf:
            raise ValueError(f"`StatefulMap(dt=...)` must be a positive number of seconds. Got {self.dt!r}.")
        expected = [f"{name}_next" for name in self.map.input_names[:n]]
        if n == 0 or len(expected) < n or list(self.map.output_names[:n]) != expected:
            raise ValueError(
                f"`StatefulMap(map=...)` must begin with {n} states and their next values {expected}. "
                f"Got inputs {list(self.map.input_names)} and outputs {list(self.map.output_names)}."
            )

    @property
    def n_states(self) -> int:
        return len(self.initial)

    @property
    def states(self) -> tuple[Signal, ...]:
        return self.map.inputs[: self.n_states]

    @property
    def inputs(self) -> tuple[Signal, ...]:
        return self.map.inputs[self.n_states :]

    @property
    def outputs(self) -> tuple[Signal, ...]:
        return self.map.outputs[self.n_states :]

    def run(self, inputs: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """From reset: inputs (time, input) -> states after each step (time, state), outputs (time, output)."""
        rows = np.asarray(inputs, dtype=np.float64)
        state, found = np.array(self.initial), np.empty((len(rows), len(self.map.outputs)))
        for k, row in enumerate(rows):
            found[k] = self.map(np.concatenate([state, row]))
            state = found[k, : self.n_states]
        return found[:, : self.n_states], found[:, self.n_states :]


# ---- makers


def filtered_derivative(signal: Signal, dt: float, cutoff: float, *, name: str | None = None) -> StatefulMap:
    r"""Derivative of a signal behind a first-order low-pass filter, ``D(s) = w s / (s + w)``, held inputs.

        d = w (x - z),    z_next = z + (1 - exp(-w dt)) (x - z),    w = 2 pi cutoff

    cutoff : Hz, below half the sampling rate. The first step returns 0: there is nothing to differentiate yet.
    """
    if not 0.0 < dt < math.inf or not 0.0 < cutoff < 0.5 / dt:
        raise ValueError(f"`filtered_derivative(cutoff=...)` must lie in (0, {0.5 / dt:g}) Hz. Got {cutoff!r}, {dt=}.")
    name = f"d_{signal.name}" if name is None else name
    memory, started = f"{name}_filter", f"{name}_started"
    rate = 2.0 * math.pi * cutoff
    x = Variable(signal.name)
    held = piecewise([(Variable(started) > 0.5, Variable(memory))], x)
    change = x - held
    unit = f"{signal.unit}/s" if signal.unit else ""
    outputs = [
        (Signal(f"{memory}_next", signal.unit), held + -math.expm1(-rate * dt) * change),
        (Signal(f"{started}_next"), Constant(1.0)),
        (Signal(name, unit), rate * change),
    ]
    inputs = [Signal(memory, signal.unit, signal.lower, signal.upper), Signal(started, "", 0.0, 1.0), signal]
    return StatefulMap(SymbolicMap(inputs, outputs, name=name), (0.0, 0.0), dt)


def delay(signal: Signal, steps: int, *, initial: float = 0.0, name: str | None = None) -> StatefulMap:
    """The value of a signal ``steps`` steps ago; ``initial`` until there is one."""
    steps = check_number("delay(steps=...)", steps, "a positive integer", whole(1))
    name = f"{signal.name}_delayed" if name is None else name
    cells = [f"{name}_{index}" for index in range(steps)]  # the oldest first
    after = [*map(Variable, cells[1:]), Variable(signal.name)]
    outputs = [(Signal(f"{cell}_next", signal.unit), node) for cell, node in zip(cells, after, strict=True)]
    inputs = [*(Signal(cell, signal.unit, signal.lower, signal.upper) for cell in cells), signal]
    read = (Signal(name, signal.unit), Variable(cells[0]))
    return StatefulMap(SymbolicMap(inputs, [*outputs, read], name=name), (float(initial),) * steps)


def with_memory(law: SymbolicMap, *parts: StatefulMap) -> StatefulMap:
    """A law some of whose inputs are outputs of ``parts``: one map with the memory of all of them.

    Inputs are those of the parts, then those of the law that no part provides; outputs are the law's.
    Raises ValueError if a part provides nothing that the law reads, names clash, or the steps differ.
    """
    if not parts:
        raise ValueError("`with_memory(*parts)` needs at least one part. Got none.")
    states = [signal for part in parts for signal in part.states]
    steps = {part.dt for part in parts if part.dt is not None}
    if len(steps) > 1:
        raise ValueError(f"`with_memory(*parts)` must have one time step. Got {sorted(steps)}.")
    provided: dict[str, Node] = {}
    for part in parts:
        mine = dict(zip((s.name for s in part.outputs), part.map.nodes[part.n_states :], strict=True))
        if not set(mine) & set(law.input_names) or set(mine) & set(provided):
            raise ValueError(
                f"`with_memory(*parts)` must each provide another input of {list(law.input_names)}. Got {sorted(mine)}."
            )
        provided |= mine
    inputs: dict[str, Signal] = {}
    for signal in [*(s for part in parts for s in part.inputs), *(s for s in law.inputs if s.name not in provided)]:
        inputs.setdefault(signal.name, signal)
    if len({s.name for s in states}) < len(states) or {s.name for s in states} & set(inputs):
        raise ValueError(f"`with_memory(*parts)` must have different names of states. Got {[s.name for s in states]}.")
    after = [
        pair
        for part in parts
        for pair in zip(part.map.outputs[: part.n_states], part.map.nodes[: part.n_states], strict=True)
    ]
    results = zip(law.outputs, substitute(law.nodes, provided), strict=True)
    joined = SymbolicMap([*states, *inputs.values()], [*after, *results], name=law.name)
    return StatefulMap(joined, tuple(v for part in parts for v in part.initial), next(iter(steps), None))


def extended_kalman_filter(
    step: SymbolicMap,
    sensors: SymbolicMap,
    *,
    process_noise: ArrayLike,
    sensor_noise: ArrayLike,
    initial: ArrayLike,
    covariance: ArrayLike,
    dt: float | None = None,
    name: str = "observer",
) -> StatefulMap:
    r"""Estimate the state from what sensors show, in closed form.

        x' = f(x, u)                     P' = A P A^T + Q              A = df/dx at x
        K = P' H^T (H P' H^T + R)^-1     x = x' + K (y - h(x'))        P = (I - K H) P',    H = dh/dx at x'

    step : ``f``, such as ``model.step_map()``: inputs are n states, then what drives them
    sensors : ``h``, from states (by name) to one output for each sensor
    process_noise : (n,) or (n, n), Q, variance added in each step      sensor_noise : (m,), diagonal of R, positive
    initial, covariance : (n,), and (n,) or (n, n), before the first step

    Inputs of the result are the drives, then the measurements (named as the sensors' outputs, with ``_measured`` where
    such a state exists); outputs the estimates ``<state>_estimate``. Memory is x and the upper triangle of P. With a
    diagonal R the sensors are taken in one by one, which equals the matrix formula and inverts nothing; the variance of
    an innovation is kept at R or more, where it is in exact arithmetic, so no division by zero is possible.
    """
    x_names = [name.removesuffix("_next") for name in step.output_names]
    n, m = len(x_names), len(sensors.outputs)
    if list(step.input_names[:n]) != x_names:
        raise ValueError(
            f"`extended_kalman_filter(step=...)` must map states to `<state>_next`. Got {list(step.input_names)} "
            f"and {list(step.output_names)}."
        )
    if not set(sensors.input_names) <= set(x_names):
        raise ValueError(
            f"`extended_kalman_filter(sensors=...)` must be functions of {x_names}. Got {list(sensors.input_names)}."
        )
    noise, p0 = _covariance("process_noise", process_noise, n), _covariance("covariance", covariance, n)
    variances = np.asarray(sensor_noise, dtype=np.float64)
    if variances.shape != (m,) or not (np.isfinite(variances) & (variances > 0.0)).all():
        raise ValueError(f"`extended_kalman_filter(sensor_noise=...)` must be {m} positive variances. Got {variances}.")
    x0 = np.asarray(initial, dtype=np.float64)
    if x0.shape != (n,):
        raise ValueError(f"`extended_kalman_filter(initial=...)` must be {n} values. Got shape {x0.shape}.")

    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    p_names = {(i, j): f"p_{x_names[i]}_{x_names[j]}" for i, j in pairs}
    p = _symmetric({pair: Variable(p_names[pair]) for pair in pairs}, n)
    a = differentiate(step.nodes, x_names)
    ap = [[_dot(a[i], [p[k][j] for k in range(n)]) for j in range(n)] for i in range(n)]
    p = _symmetric({(i, j): _dot(ap[i], a[j]) + noise[i, j] for i, j in pairs}, n)
    ahead = dict(zip(x_names, step.nodes, strict=True))
    shown = substitute(sensors.nodes, ahead)
    slopes = [substitute(row, ahead) for row in differentiate(sensors.nodes, x_names)]
    measured = [s.name if s.name not in step.input_names else f"{s.name}_measured" for s in sensors.outputs]

    shift: list[Node] = [Constant(0.0)] * n
    for k in range(m):
        h, variance = slopes[k], float(variances[k])
        ph = [_dot(p[i], h) for i in range(n)]
        gain_denominator = maximum(_dot(h, ph) + variance, variance)
        innovation = Variable(measured[k]) - shown[k] - _dot(h, shift)
        gain = [each / gain_denominator for each in ph]
        shift = [_sum(shift[i], gain[i] * innovation) for i in range(n)]
        p = _symmetric({(i, j): p[i][j] - gain[i] * ph[j] for i, j in pairs}, n)

    estimates = [_sum(ahead[name], shift[i]) for i, name in enumerate(x_names)]
    units = [signal.unit for signal in step.inputs[:n]]
    after = [
        *((Signal(f"{x_name}_next", unit), node) for x_name, unit, node in zip(x_names, units, estimates, strict=True)),
        *((Signal(f"{p_names[i, j]}_next"), p[i][j]) for i, j in pairs),
    ]
    results = [(Signal(f"{x}_estimate", unit), node) for x, unit, node in zip(x_names, units, estimates, strict=True)]
    inputs = [
        *step.inputs[:n],
        *(Signal(p_names[pair]) for pair in pairs),
        *step.inputs[n:],
        *(Signal(label, s.unit, s.lower, s.upper) for label, s in zip(measured, sensors.outputs, strict=True)),
    ]
    start = (*x0.tolist(), *(float(p0[pair]) for pair in pairs))
    return StatefulMap(SymbolicMap(inputs, [*after, *results], name=name), start, dt)


def _covariance(argument: str, values: ArrayLike, n: int) -> np.ndarray:
    matrix = np.asarray(values, dtype=np.float64)
    matrix = np.diag(matrix) if matrix.shape == (n,) else matrix
    good = matrix.shape == (n, n) and np.isfinite(matrix).all() and np.array_equal(matrix, matrix.T)
    if not good or np.linalg.eigvalsh(matrix)[0] < -1e-12 * max(float(np.abs(matrix).max()), 1e-300):
        raise ValueError(
            f"`extended_kalman_filter({argument}=...)` must be {n} variances or a covariance matrix. Got {values!r}."
        )
    return matrix


def _symmetric(entries: dict[tuple[int, int], Node], n: int) -> list[list[Node]]:
    return [[entries[min(i, j), max(i, j)] for j in range(n)] for i in range(n)]


def _is_number(node: Node, value: float) -> bool:
    return isinstance(node, Constant) and node.value == value


def _sum(a: Node, b: Node) -> Node:
    return b if _is_number(a, 0.0) else a if _is_number(b, 0.0) else a + b


def _dot(a: Sequence[Node], b: Iterable[Node]) -> Node:
    """Sum of products without those that are zero: matrices of models are sparse."""
    total: Node = Constant(0.0)
    for left, right in zip(a, b, strict=True):
        if _is_number(left, 0.0) or _is_number(right, 0.0):
            continue
        product = right if _is_number(left, 1.0) else left if _is_number(right, 1.0) else left * right
        total = _sum(total, product)
    return total


# ---- C


@dataclasses.dataclass(frozen=True)
class Memory:
    """The part of the C that remembers, around the function ``NAME`` of states and inputs."""

    number: Number
    initial: tuple[float, ...]
    names: tuple[str, ...]
    n_inputs: int
    n_outputs: int

    def declarations(self, name: str) -> list[str]:
        """For the header, after that of ``NAME``."""
        kind, states = TYPES[self.number], ", ".join(self.names)
        return [
            f"/* Memory, owned by the caller: {states}. */",
            f"typedef struct {{ {kind} x[{len(self.initial)}]; }} {name}_state_t;",
            "",
            "/* To be called once before the first step, and whenever the past is of no account. */",
            f"void {name}_reset({name}_state_t *self);",
            "",
            *([] if self.n_outputs else ["/* There are no outputs: `out` is not written. */"]),
            f"{self._step_prototype(name)};",
            "",
        ]

    def text(self, name: str) -> str:
        """The C functions, ending in a newline."""
        kind, n = TYPES[self.number], len(self.initial)
        before, after = n + self.n_inputs, n + self.n_outputs
        start = ", ".join(literal(value, self.number) for value in self.initial)
        lines = [
            f"void {name}_reset({name}_state_t *self) {{",
            f"    static const {kind} initial[{n}] = {{{start}}};",
            *_loop(n, "self->x[i] = initial[i];"),
            "}",
            "",
            f"{self._step_prototype(name)} {{",
            f"    {kind} before[{before}];",
            f"    {kind} after[{after}];",
            *_loop(n, "before[i] = self->x[i];"),
            *(_loop(self.n_inputs, f"before[{n} + i] = in[i];") if self.n_inputs else ["    (void)in;"]),
            f"    {name}(before, after);",
            *_loop(n, "self->x[i] = after[i];"),
            *(_loop(self.n_outputs, f"out[i] = after[{n} + i];") if self.n_outputs else ["    (void)out;"]),
            "}",
            "",
        ]
        return "\n".join(lines)

    def _step_prototype(self, name: str) -> str:
        kind = TYPES[self.number]
        ins, outs = max(self.n_inputs, 1), max(self.n_outputs, 1)
        return f"void {name}_step({name}_state_t *self, const {kind} in[{ins}], {kind} out[{outs}])"


def _loop(count: int, statement: str) -> list[str]:
    return [f"    for (int i = 0; i < {count}; i++) {{", f"        {statement}", "    }"]


def memory_of(stateful: StatefulMap, number: Number) -> Memory:
    """What the C of ``stateful`` needs beyond its map."""
    return Memory(
        number,
        stateful.initial,
        tuple(signal.name for signal in stateful.states),
        len(stateful.inputs),
        len(stateful.outputs),
    )
