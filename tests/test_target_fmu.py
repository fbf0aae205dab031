"""Source FMUs: FMPy finds nothing wrong, builds them and simulates what the map says."""

from __future__ import annotations

import dataclasses
import io
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sindyrl.export.artifact import Artifact
from sindyrl.export.targets import target_files, write_target
from sindyrl.symbolic_map import Signal, SymbolicMap
from tests.strategies import points
from tests.target_cases import (
    X,
    artifact_from,
    continuous_oscillator,
    discrete_oscillator,
    exact,
    varied,
)

fmpy = pytest.importorskip("fmpy")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Werror", "-O2", "-ffp-contract=off")


def unpacked(artifact: Artifact, folder: Path) -> Path:
    (archive,) = write_target(artifact, "fmu", folder)
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder / "fmu")
    return folder / "fmu"


def built(artifact: Artifact, folder: Path) -> Path:
    """A folder with the binary of this machine, compiled by hand with warnings as errors and FMPy's headers."""
    fmu = unpacked(artifact, folder)
    headers = Path(fmpy.__file__).parent / "c-code"
    binary = fmu / "binaries" / fmpy.platform / f"{artifact.name}{fmpy.sharedLibraryExtension}"
    binary.parent.mkdir(parents=True)
    sources = sorted((fmu / "sources").glob("*.c"))
    command = ["gcc", *STRICT, "-shared", "-fPIC", f"-I{headers}", *map(str, sources), "-o", str(binary), "-lm"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return fmu


@contextmanager
def instance(fmu: Path) -> Iterator[tuple[Any, dict[str, int]]]:
    """An initialized co-simulation slave, and the value references of its variables."""
    from fmpy.fmi2 import FMU2Slave

    description = fmpy.read_model_description(fmu)
    slave = FMU2Slave(
        guid=description.guid,
        unzipDirectory=str(fmu),
        modelIdentifier=description.coSimulation.modelIdentifier,
        instanceName="tested",
    )
    slave.instantiate()
    slave.setupExperiment()
    slave.enterInitializationMode()
    slave.exitInitializationMode()
    try:
        yield slave, {variable.name: variable.valueReference for variable in description.modelVariables}
    finally:
        slave.terminate()
        slave.freeInstance()


@pytest.mark.parametrize(
    "make", [lambda: artifact_from(varied()), discrete_oscillator, continuous_oscillator], ids=["map", "step", "rates"]
)
def test_fmpy_finds_nothing_wrong(tmp_path, make):
    from fmpy.validation import validate_fmu

    (archive,) = write_target(make(), "fmu", tmp_path)
    assert validate_fmu(str(archive)) == []


def test_the_validator_would_notice(tmp_path):
    from fmpy.validation import validate_fmu

    fmu = unpacked(discrete_oscillator(), tmp_path)
    text = (fmu / "modelDescription.xml").read_text()
    (fmu / "modelDescription.xml").write_text(text.replace('<Unknown index="4"/>', "", 1))
    assert validate_fmu(str(fmu)) != []


@pytest.mark.skipif(shutil.which("cmake") is None, reason="FMPy builds with CMake, which is not installed")
def test_fmpy_builds_it_and_simulates_the_discrete_states(tmp_path):
    from fmpy.build import build_platform_binary

    artifact = discrete_oscillator()
    fmu = unpacked(artifact, tmp_path)
    build_platform_binary(fmu)
    times = np.arange(0.0, 1.0, 0.01)
    force = np.array([(t, np.sin(9.0 * t)) for t in times], dtype=[("time", float), ("force", float)])
    result = fmpy.simulate_fmu(str(fmu), input=force, output=["x", "v", "energy"], stop_time=0.5)
    assert len(result) == 51
    state = np.array([1.0, 0.0])
    for step in range(50):
        np.testing.assert_allclose([result["x"][step], result["v"][step]], state, rtol=1e-12, err_msg=str(step))
        state = artifact.form([*state, np.sin(9.0 * 0.01 * step)])[:2]
        energy = artifact.form([result["x"][step], result["v"][step], 0.0])[2]
        assert result["energy"][step] == pytest.approx(energy, rel=1e-12)


def test_a_map_without_states_answers_at_once_with_its_own_numbers(tmp_path):
    fmu = built(artifact_from(exact(), "float64"), tmp_path)
    with instance(fmu) as (slave, reference):
        for row in points(3, 50, n_inputs=2, extreme=False):
            slave.setReal([reference["x"], reference["v"]], row.tolist())
            assert slave.getReal([reference["u"], reference["w"]]) == exact()(row).tolist()
        slave.doStep(0.0, 0.3)
        slave.reset()
        assert slave.getReal([reference["u"]]) == [exact()([0.0, 0.0])[0]]


def test_a_float32_fmu_keeps_the_bound_of_the_c(tmp_path):
    artifact = artifact_from(varied())
    fmu = built(artifact, tmp_path)
    with instance(fmu) as (slave, reference):
        for row, expected, tolerance in zip(artifact.inputs, artifact.expected, artifact.tolerance, strict=True):
            slave.setReal([reference["x"], reference["v"], reference["sin"]], row.astype(float).tolist())
            names = ("u", "piece", "net", "lambda", "x_out")
            found = slave.getReal([reference[name] for name in names])
            finite = [0, 1, 2, 3, 5]
            assert np.all(np.abs(np.array(found) - expected[finite]) <= tolerance[finite])


def test_a_state_can_be_kept_and_restored(tmp_path):
    fmu = built(discrete_oscillator(), tmp_path)
    with instance(fmu) as (slave, reference):
        kept = slave.getFMUState()
        slave.doStep(0.0, 0.05)
        moved = slave.getReal([reference["x"]])
        slave.setFMUState(kept)
        assert slave.getReal([reference["x"]]) == [1.0]
        slave.doStep(0.0, 0.05)
        assert slave.getReal([reference["x"]]) == moved != [1.0]
        slave.freeFMUState(kept)


def test_a_step_that_is_no_multiple_of_the_period_is_refused(tmp_path):
    from fmpy.fmi1 import FMICallException

    fmu = built(discrete_oscillator(), tmp_path)
    with instance(fmu) as (slave, reference):
        for step in (0.014, 0.016, 0.004, 0.0, -0.01, 1e300):
            with pytest.raises(FMICallException):
                slave.doStep(0.0, step)
        with pytest.raises(FMICallException):
            slave.getReal([99])
        with pytest.raises(FMICallException):
            slave.setReal([reference["energy"]], [1.0])
        assert slave.getReal([reference["x"]]) == [1.0]


def test_without_a_period_every_step_is_one_update(tmp_path):
    artifact = dataclasses.replace(discrete_oscillator(), dt=None)
    fmu = built(artifact, tmp_path)
    state = np.array([1.0, 0.0])
    with instance(fmu) as (slave, reference):
        for step in (0.3, 1e-3, 7.0):
            slave.doStep(0.0, step)
            state = artifact.form([*state, 0.0])[:2]
            assert slave.getReal([reference["x"], reference["v"]]) == state.tolist()


def test_derivatives_are_integrated_by_the_importer(tmp_path):
    """x'' = -4 x from rest at 1 is cos(2 t)."""
    fmu = built(continuous_oscillator(), tmp_path)
    result = fmpy.simulate_fmu(str(fmu), stop_time=2.0, output_interval=0.1, relative_tolerance=1e-8)
    np.testing.assert_allclose(result["x"], np.cos(2.0 * result["time"]), atol=1e-5)
    np.testing.assert_allclose(result["energy"], 2.0, atol=1e-4)


def test_another_guid_is_refused(tmp_path):
    fmu = built(artifact_from(exact()), tmp_path)
    description = fmpy.read_model_description(fmu)
    path = fmu / "modelDescription.xml"
    path.write_text(path.read_text().replace(description.guid, "{00000000-0000-0000-0000-000000000000}"))
    with pytest.raises(Exception, match="instantiate"), instance(fmu):
        pass


def test_the_guid_follows_the_content():
    def guid(artifact: Artifact) -> str:
        return str(description(artifact).get("guid"))

    assert guid(artifact_from(exact())) == guid(artifact_from(exact()))
    others = [
        artifact_from(exact(), "float64"),
        artifact_from(SymbolicMap(["x"], {"u": X}, name="exact_map")),
        artifact_from(exact(), dt=0.5),
    ]
    assert len({guid(artifact) for artifact in [artifact_from(exact()), *others]}) == 4


def description(artifact: Artifact) -> ElementTree.Element:
    (content,) = target_files(artifact, "fmu").values()
    assert isinstance(content, bytes)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        return ElementTree.fromstring(archive.read("modelDescription.xml"))


def test_units_ranges_and_starts_are_those_of_the_signals():
    signals = [Signal("force", "kN", 2.0, 5.0), Signal("angle", "deg"), Signal("heads", "rabbits"), Signal("plain")]
    form = SymbolicMap(signals, {Signal("y", "m/s^2", -1.0, 1.0): 2.0}, name="signals")
    root = description(artifact_from(form))
    units = {unit.get("name"): unit.find("BaseUnit") for unit in root.iter("Unit")}
    assert set(units) == {"kN", "deg", "rabbits", "m/s^2"}
    assert units["kN"].attrib == {"kg": "1", "m": "1", "s": "-2", "factor": "1000.0"}
    assert float(units["deg"].get("factor")) == pytest.approx(np.pi / 180)
    assert units["rabbits"] is None
    reals = {variable.get("name"): variable.find("Real").attrib for variable in root.iter("ScalarVariable")}
    assert reals["force"] == {"unit": "kN", "min": "2.0", "max": "5.0", "start": "2.0"}
    assert reals["plain"] == {"start": "0.0"}
    assert reals["y"] == {"unit": "m/s^2"}


def test_each_variable_has_a_name_of_its_own():
    form = SymbolicMap(["x", "x_out"], {"x": 2.0 * X, "y": X}, name="shared")
    names = [variable.get("name") for variable in description(artifact_from(form)).iter("ScalarVariable")]
    assert names == ["x", "x_out", "x_out_out", "y"]
