"""An ES module for Node and the browser: ``import { policy } from "./policy.mjs"; const [u] = policy([x, v]);``.

float64, in the order of the map. ``+ - * /``, square roots and comparisons give the map's bits; ``Math.sin`` and its
like are each engine's own: Node 20's (V8) stay within 2 units in the last place of NumPy's.
``node policy_selftest.mjs`` runs the known answers.
A map with memory is the pure function of states and inputs here; the caller keeps the states.
"""

from __future__ import annotations

import numpy as np

from sindyrl.emit.javascript import javascript_function
from sindyrl.export.artifact import Artifact, float_answers

CHECK = "Node runs it in the tests, on random vectors and on its self-test."

_SELF_TEST = """{banner}
import {{ {name} }} from "./{name}.mjs";

const states = {states};
const expected = {expected};
const tolerance = {tolerance};

// Number of outputs that miss their known value.
export function selftest() {{
  let failures = 0;
  states.forEach((state, row) => {{
    {name}(state).forEach((value, column) => {{
      const answer = expected[row][column];
      if (value !== answer && !(Math.abs(value - answer) <= tolerance[row][column])) {{
        failures++;
      }}
    }});
  }});
  return failures;
}}

if (typeof process !== "undefined") {{
  process.exitCode = selftest() === 0 ? 0 : 1;
}}
"""


def files(artifact: Artifact) -> dict[str, str | bytes]:
    """``NAME.mjs`` and ``NAME_selftest.mjs``; ValueError for a name that JavaScript reserves."""
    form, name = artifact.form, artifact.name
    banner = artifact.banner("// ")
    about = [f"// {line}".rstrip() for line in artifact.description()]
    code = javascript_function(form.input_names, dict(zip(form.output_names, form.nodes, strict=True)), name)
    answers = float_answers(artifact)
    self_test = _SELF_TEST.format(
        banner="\n".join(banner),
        name=name,
        states=_table(answers.inputs),
        expected=_table(answers.expected),
        tolerance=_table(answers.tolerance),
    )
    return {f"{name}.mjs": "\n".join([*banner, "//", *about, "", code]), f"{name}_selftest.mjs": self_test}


def _table(values: np.ndarray) -> str:
    rows = ["  [" + ", ".join(_number(float(value)) for value in row) + "]," for row in values]
    return "\n".join(["[", *rows, "]"])


def _number(value: float) -> str:
    return repr(value).replace("inf", "Infinity").replace("nan", "NaN")
