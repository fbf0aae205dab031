import os
import pathlib

import hypothesis
import jaxtyping

import tests.shape_checks

os.environ.setdefault("MUJOCO_GL", "disable")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = pathlib.Path(__file__).resolve().parent.parent

jaxtyping.install_import_hook(tests.shape_checks.modules_with_shapes(ROOT / "sindyrl"), "tests.shape_checks.check")

# The first example of a property compiles, loads or imports; its time says nothing.
# `make test` gives every machine the same examples, so that a commit has one verdict; `make test-all` seeks new ones.
hypothesis.settings.register_profile("sindyrl", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, print_blob=True)
hypothesis.settings.load_profile("sindyrl")
