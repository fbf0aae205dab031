"""A file imports only from lines above its own in ORDER; imports inside functions and for type checkers count too."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# From the bottom up, in the layers of the architecture. A name stands for a file or for a whole folder, whose files may
# import each other. What a lower line needs from a higher one it receives as an argument.
ORDER = (
    # 0 what every file may use
    "sindyrl.number_check",
    # 1 the closed-form language
    "sindyrl.node",
    "sindyrl.traversal",
    "sindyrl.calculus",
    "sindyrl.interval",
    "sindyrl.map_file",
    "sindyrl.node_table",
    "sindyrl.expression",
    "sindyrl.emit",
    "sindyrl.backends",
    "sindyrl.sympy_view",
    "sindyrl.symbolic_map",
    "sindyrl.poles",
    # 2 data, regression, models
    "sindyrl.protocols",
    "sindyrl.trajectory_file",
    "sindyrl.trajectory",
    "sindyrl.parameters",
    "sindyrl.pieces",
    "sindyrl.conditioning",
    "sindyrl.product_plan",
    "sindyrl.library",
    "sindyrl.sparse_map",
    "sindyrl.rational_map",
    "sindyrl.differentiate",
    "sindyrl.regression",
    "sindyrl.pysindy_bridge",
    "sindyrl.units",
    "sindyrl.structure",
    "sindyrl.planar_body",
    "sindyrl.stops_at_wall",
    "sindyrl.structure_file",
    "sindyrl.model",
    "sindyrl.dmdc",
    "sindyrl.task",
    "sindyrl.guard",
    "sindyrl.noisy",
    "sindyrl.change_detection",
    "sindyrl.paired_switch",
    "sindyrl.prediction_window",
    "sindyrl.online_report",
    "sindyrl.online",
    "sindyrl.rational",
    "sindyrl.identify",
    "sindyrl.reward_model",
    "sindyrl.simulate",
    "sindyrl.uncertainty",
    "sindyrl.measurement_noise",
    "sindyrl.validation",
    "sindyrl.conserved",
    "sindyrl.model_selection",
    "sindyrl.seeding",
    "sindyrl.collect",
    "sindyrl.excitation",
    "sindyrl.composed_policy",
    "sindyrl.input_design",
    # 3 systems, export, learning
    "sindyrl.envs",
    "sindyrl.export",
    "sindyrl.loading",
    "sindyrl.learn",
    "sindyrl.distill",
    "sindyrl.sb3_policy",
    # 4 controllers
    "sindyrl.controllers",
    # 5 what a user sees
    "sindyrl.run_folder",
    "sindyrl.checkout",
    "sindyrl.reproduction",
    "sindyrl.recording",
    "sindyrl.coefficient_path",
    "sindyrl.fit_settings",
    "sindyrl.fitting",
    "sindyrl.plot_style",
    "sindyrl.plot",
    "sindyrl.landscape",
    "sindyrl.page",
    "sindyrl.fit_plot",
    "sindyrl.fit_report",
    "sindyrl.report",
    "sindyrl.chain",
    "sindyrl.console",
    "sindyrl.bench_command",
    "sindyrl.reproduce_command",
    "sindyrl.export_command",
    "sindyrl.fit_command",
    "sindyrl.demo",
    "sindyrl.cli",
    "sindyrl.__main__",
)
TABLE_OF_CONTENTS = "sindyrl"  # loads lazily, so it may name everything


def modules() -> dict[str, pathlib.Path]:
    """Module name -> file, for every file of the package, the planners under the name they are imported by."""
    found = {}
    for folder, prefix in ((ROOT / "sindyrl", ("sindyrl",)), (ROOT / "controllers", ("sindyrl", "controllers"))):
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder).with_suffix("").parts
            if prefix == ("sindyrl",) and inside[0] == "controllers":
                continue  # the link, in case it is followed
            parts = prefix + inside
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: pathlib.Path, known: set[str]) -> set[str]:
    """The modules of ours that a file imports anywhere in it."""
    names = set()
    package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import module` names the module; `from module import name` does not.
            full = {f"{start}.{alias.name}" for alias in node.names} - {"sindyrl.__version__"}  # a constant
            names |= {name if name in known else start for name in full}
    return {name for name in names if name == "sindyrl" or name.startswith("sindyrl.")}


def line_of(module: str) -> str | None:
    """The entry of ORDER that a module belongs to."""
    return next((entry for entry in ORDER if module == entry or module.startswith(entry + ".")), None)


MODULES = modules()
FILES = [name for name in MODULES if name != TABLE_OF_CONTENTS]
GRAPH = {name: imports(name, MODULES[name], set(MODULES)) for name in FILES}


@pytest.mark.parametrize("module", FILES)
def test_a_file_imports_only_from_lines_above(module):
    here = line_of(module)
    assert here, f"{module} is not in ORDER. Add it to {pathlib.Path(__file__).name}, on the line of its layer."
    for target in sorted(GRAPH[module]):
        assert target != TABLE_OF_CONTENTS, f"{module} imports the package `sindyrl`; name the module instead."
        there = line_of(target)
        assert there, f"{module} imports {target}, which is not in ORDER. Add it to {pathlib.Path(__file__).name}."
        assert there == here or ORDER.index(there) < ORDER.index(here), (
            f"{module} imports {target}, which is on a later line of ORDER. "
            "Pass what is needed as an argument, or move the file."
        )


def test_no_files_import_each_other_in_a_circle():
    # A folder's files may import its __init__, which lists them; only cycles between other files are meant here.
    files = {
        name: {t for t in targets if MODULES.get(t, pathlib.Path()).stem != "__init__"}
        for name, targets in GRAPH.items()
    }
    graphlib.TopologicalSorter(files).prepare()


def test_the_checks_would_notice_an_import_inside_a_function(tmp_path):
    path = tmp_path / "node.py"
    path.write_text("def f():\n    from sindyrl.envs import cartpole\n    import sindyrl.cli\n    from . import task\n")
    known = {"sindyrl.envs.cartpole", "sindyrl.task"}
    assert imports("sindyrl.node", path, known) == {"sindyrl.envs.cartpole", "sindyrl.cli", "sindyrl.task"}
