"""A ``no_std`` crate without dependencies: ``policy = { path = "policy" }`` in Cargo.toml, ``policy::policy(&state)``.

f32 or f64, as the C. ``core`` has no sine: a map that needs one takes it from a trait that the caller fills in, see the
crate's documentation. ``cargo test`` runs the known answers, with the functions of ``std``.
A map with memory is the pure function of states and inputs here; the caller keeps the states.
"""

from __future__ import annotations

import numpy as np

from sindyrl.emit.rust import TYPES, Rust, rust_function
from sindyrl.emit.wrapping import wrapped
from sindyrl.export.artifact import Artifact

CHECK = "`cargo test` runs the known answers in the tests, where Rust is installed."

_CARGO = """{banner}
[package]
name = "{name}"
version = "{release}"
edition = "2021"
description = "The closed-form map {title}"
publish = false
"""

_TESTS = """
#[cfg(test)]
mod tests {{
{functions}
{tables}

    #[test]
    fn known_answers() {{
        for ((state, expected), tolerance) in STATES.iter().zip(EXPECTED.iter()).zip(TOLERANCE.iter()) {{
            let out = super::{name}{turbofish}(state);
            for index in 0..{m} {{
                let (value, answer) = (out[index], expected[index]);
                assert!(value == answer || (value - answer).abs() <= tolerance[index], "{{:?}}", state);
            }}
        }}
    }}
}}
"""


def files(artifact: Artifact) -> dict[str, str | bytes]:
    """``Cargo.toml`` and ``src/lib.rs``.

    Raises ValueError for a name that Rust or Cargo reserves, and for fixed point.
    """
    if artifact.number not in TYPES:
        raise ValueError(f'`target="rust"` needs `number="float32"` or "float64". Got {artifact.number!r}.')
    form, name = artifact.form, artifact.name
    signals = dict(zip(form.output_names, form.nodes, strict=True))
    code, needed = rust_function(form.input_names, signals, name, number=artifact.number)
    banner, about = artifact.banner(), [f"//! {line}".rstrip() for line in artifact.description()]
    head = [f"// {banner[0]}", f"// {banner[1]}", "", "//! ```text", *about, "//! ```"]
    head += ["#![cfg_attr(not(test), no_std)]", "#![forbid(unsafe_code)]", ""]
    cargo = _CARGO.format(
        banner="\n".join(artifact.banner("# ")),
        name=name,
        release=artifact.release,
        title=artifact.title.partition(": ")[2],
    )
    return {"Cargo.toml": cargo, "src/lib.rs": "\n".join([*head, code]) + _tests(artifact, needed)}


def _tests(artifact: Artifact, needed: tuple[str, ...]) -> str:
    if not len(artifact.inputs):
        return ""
    kind = TYPES[artifact.number]
    functions = ""
    if needed:
        rust_name = {"log": "ln"}
        bodies = [f"        fn {op}(x: {kind}) -> {kind} {{ x.{rust_name.get(op, op)}() }}" for op in needed]
        functions = "\n".join(["    struct Std;", "    impl super::Functions for Std {", *bodies, "    }"])
    tables = (("STATES", artifact.inputs), ("EXPECTED", artifact.expected), ("TOLERANCE", artifact.tolerance))
    return _TESTS.format(
        functions=functions,
        tables="\n".join(_table(title, values, artifact.number) for title, values in tables),
        name=artifact.name,
        turbofish="::<Std>" if needed else "",
        m=len(artifact.form.outputs),
    )


def _table(title: str, values: np.ndarray, number: str) -> str:
    dialect = Rust(number)
    rows = ["[" + ", ".join(_number(float(value), dialect) for value in row) + "]," for row in values]
    head = f"    const {title}: [[{dialect.type}; {values.shape[1]}]; {len(values)}] = ["
    return "\n".join([head, *(part for row in rows for part in wrapped(f"        {row}")), "    ];"])


def _number(value: float, dialect: Rust) -> str:
    if np.isinf(value):
        return f"{'-' * bool(value < 0.0)}{dialect.type}::INFINITY"
    return dialect.literal(value)
