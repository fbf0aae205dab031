"""Plain NumPy source: ``from policy import policy`` in any program that has NumPy, without this library.

``policy(state)`` takes arrays (..., inputs) and returns (..., outputs) in float64, with the bits of the library's own
NumPy back end. ``python policy.py`` runs the known answers.
A map with memory is the pure function of states and inputs here; the caller keeps the states.
"""

from __future__ import annotations

import numpy as np

from sindyrl.emit.python_source import numpy_function
from sindyrl.emit.wrapping import wrapped
from sindyrl.export.artifact import Artifact, float_answers

CHECK = "Imported by a Python that does not see this library; every bit compared with the map."

_SELF_TEST = """
def selftest():
    \"\"\"Number of outputs that miss their known value.\"\"\"
    found, expected = {name}(np.array(STATES)), np.array(EXPECTED)
    with np.errstate(invalid="ignore"):
        good = (found == expected) | (np.abs(found - expected) <= np.array(TOLERANCE))
    return int(np.count_nonzero(~good))


if __name__ == "__main__":
    raise SystemExit(selftest() != 0)
"""


def files(artifact: Artifact) -> dict[str, str | bytes]:
    """``NAME.py``; ValueError for a name that Python reserves."""
    form, name = artifact.form, artifact.name
    signals = dict(zip(form.output_names, form.nodes, strict=True))
    docstring = "\n".join(['"""' + artifact.banner()[0], *artifact.banner()[1:], "", *artifact.description(), '"""'])
    parts = [docstring, "", numpy_function(form.input_names, signals, name)]
    answers = float_answers(artifact)
    if len(answers.inputs):
        tables = (("STATES", answers.inputs), ("EXPECTED", answers.expected), ("TOLERANCE", answers.tolerance))
        parts += ["", *(_table(title, values) for title, values in tables), _SELF_TEST.format(name=name)]
    return {f"{name}.py": "\n".join(parts)}


def _table(title: str, values: np.ndarray) -> str:
    rows = ["[" + ", ".join(_number(float(value)) for value in row) + "]," for row in values]
    return "\n".join([f"{title} = [", *(part for row in rows for part in wrapped(f"    {row}")), "]"])


def _number(value: float) -> str:
    return repr(value).replace("inf", "np.inf").replace("nan", "np.nan")
