"""Packages around the C: each holds what its build system demands, and builds and runs with that system's tools."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sindyrl.export.targets import target_files, write_target
from sindyrl.symbolic_map import Signal, SymbolicMap
from tests.target_cases import artifact_from, compile_and_run, discrete_oscillator, exact, run, varied

# installed with the tests, so beside the interpreter; make does not put that folder on the path
PIO = shutil.which("pio", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="CMake is not installed")


# ---- CMake and Zephyr


@needs_cmake
def test_cmake_builds_and_its_self_test_passes_and_notices_a_changed_digit(tmp_path):
    write_target(artifact_from(varied()), "cmake", tmp_path)
    configure = ("cmake", "-S", ".", "-B", "build", "-DCMAKE_C_FLAGS=-Werror")
    run(*configure, cwd=tmp_path)
    run("cmake", "--build", "build", cwd=tmp_path)
    assert "100% tests passed" in run("ctest", "--test-dir", "build", cwd=tmp_path)
    code = (tmp_path / "varied.c").read_text()
    assert "12.4f" in code
    (tmp_path / "varied.c").write_text(code.replace("12.4f", "-12.4f"))
    run("cmake", "--build", "build", cwd=tmp_path)
    assert subprocess.run(["ctest", "--test-dir", "build"], cwd=tmp_path, capture_output=True).returncode != 0


@needs_cmake
def test_cmake_serves_a_project_that_adds_the_folder(tmp_path):
    write_target(artifact_from(exact()), "cmake", tmp_path / "exact")
    (tmp_path / "main.cpp").write_text(
        "#include <exact_map.h>\nint main() { float s[2] = {0, 0}, u[2]; exact_map(s, u); return u[0] != 0; }\n"
    )
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.15)\nproject(firmware CXX)\nadd_subdirectory(exact)\n"
        "add_executable(firmware main.cpp)\ntarget_link_libraries(firmware exact_map)\n"
    )
    run("cmake", "-S", ".", "-B", "build", cwd=tmp_path)
    run("cmake", "--build", "build", cwd=tmp_path)
    run(tmp_path / "build" / "firmware", cwd=tmp_path)
    assert not list((tmp_path / "build").rglob("*selftest*"))


ZEPHYR = """cmake_minimum_required(VERSION 3.15)
project(app C)
# Stand-ins for Zephyr's CMake functions.
macro(zephyr_library)
  set(ZEPHYR_CURRENT_LIBRARY module_under_test)
  add_library(module_under_test STATIC)
endmacro()
macro(zephyr_library_sources)
  target_sources(module_under_test PRIVATE ${ARGN})
endmacro()
macro(zephyr_library_sources_ifdef flag)
  if(${flag})
    target_sources(module_under_test PRIVATE ${ARGN})
  endif()
endmacro()
macro(zephyr_library_compile_options)
  target_compile_options(module_under_test PRIVATE ${ARGN})
endmacro()
macro(zephyr_include_directories)
  foreach(folder ${ARGN})
    include_directories(module/${folder})
  endforeach()
  set(folders ${ARGN})
  list(TRANSFORM folders PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/")
  set_property(GLOBAL PROPERTY folders ${folders})
endmacro()
add_subdirectory(module)
add_executable(app main.c)
get_property(folders GLOBAL PROPERTY folders)
target_include_directories(app PRIVATE ${folders})
target_link_libraries(app module_under_test m)
"""


@needs_cmake
def test_a_zephyr_module_builds_when_its_symbol_is_set(tmp_path):
    write_target(artifact_from(varied()), "zephyr", tmp_path / "module")
    (tmp_path / "CMakeLists.txt").write_text(ZEPHYR)
    (tmp_path / "main.c").write_text('#include "varied.h"\nint main(void) { return varied_selftest(); }\n')
    symbols = ("-DCONFIG_SINDYRL_VARIED=y", "-DCONFIG_SINDYRL_VARIED_SELFTEST=y")
    run("cmake", "-S", ".", "-B", "build", *symbols, cwd=tmp_path)
    run("cmake", "--build", "build", cwd=tmp_path)
    run(tmp_path / "build" / "app", cwd=tmp_path)
    off = subprocess.run(["cmake", "-S", ".", "-B", "off"], cwd=tmp_path, capture_output=True)
    assert off.returncode == 0
    assert subprocess.run(["cmake", "--build", "off"], cwd=tmp_path, capture_output=True).returncode != 0


def test_a_zephyr_module_is_described_as_zephyr_asks():
    files = target_files(discrete_oscillator(), "zephyr")
    module = [line for line in files["zephyr/module.yml"].splitlines() if not line.startswith("#")]
    assert module == ["name: oscillator", "build:", "  cmake: .", "  kconfig: Kconfig"]
    symbols = re.findall(r"^config (\w+)$", files["Kconfig"], re.MULTILINE)
    assert symbols == ["SINDYRL_OSCILLATOR", "SINDYRL_OSCILLATOR_SELFTEST"]
    assert "every 0.01 s" in files["Kconfig"]
    used = set(re.findall(r"CONFIG_(\w+)", files["CMakeLists.txt"]))
    assert used == set(symbols)


def test_kconfig_is_read_by_kconfiglib(tmp_path, monkeypatch):
    kconfiglib = pytest.importorskip("kconfiglib")
    write_target(discrete_oscillator(), "zephyr", tmp_path)
    monkeypatch.chdir(tmp_path)
    symbols = kconfiglib.Kconfig("Kconfig", warn_to_stderr=False)
    symbols.syms["SINDYRL_OSCILLATOR_SELFTEST"].set_value(2)
    assert symbols.syms["SINDYRL_OSCILLATOR_SELFTEST"].str_value == "n"  # needs the library itself
    symbols.syms["SINDYRL_OSCILLATOR"].set_value(2)
    assert symbols.syms["SINDYRL_OSCILLATOR_SELFTEST"].str_value == "y"


# ---- Arduino


CATEGORIES = (
    *("Display", "Communication", "Signal Input/Output", "Sensors", "Device Control", "Timing", "Data Storage"),
    *("Data Processing", "Other"),
)


def arduino_problems(folder: Path) -> list[str]:
    """What a library folder has against revision 2.2 of the Arduino library specification."""
    found = []
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", folder.name):
        found.append("folder name")
    properties = {}
    for line in (folder / "library.properties").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            found += [] if equals and key not in properties else [f"line {line!r}"]
            properties[key] = value
    for key in ("name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"):
        found += [] if properties.get(key, "").strip() else [f"{key} missing"]
    name = properties.get("name", "")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}", name) or not re.search("[A-Za-z]", name):
        found.append("name")
    found += ["reserved name"] if name.lower().startswith("arduino") else []
    number = "(0|[1-9][0-9]*)"
    if not re.fullmatch(rf"{number}\.{number}(\.{number})?", properties.get("version", "")):
        found.append("version")
    found += [] if properties.get("category") in CATEGORIES else ["category"]
    found += [] if re.fullmatch(r"https?://[^\s/]+(/\S*)?", properties.get("url", "")) else ["url"]
    found += [] if re.fullmatch(r"\*|\w+(,\s*\w+)*", properties.get("architectures", "")) else ["architectures"]
    for header in properties.get("includes", "").split(","):
        found += [] if (folder / "src" / header.strip()).is_file() else [f"includes {header}"]
    found += [] if list((folder / "src").glob("*.h")) else ["no header in src"]
    found += ["source beside src"] if list(folder.glob("*.c")) + list(folder.glob("*.h")) else []
    sketches = list((folder / "examples").rglob("*.ino"))
    found += [] if sketches else ["no example"]
    found += [f"sketch {path.name}" for path in sketches if path.stem != path.parent.name]
    for line in (folder / "keywords.txt").read_text().splitlines():
        good = not line or line.startswith("#") or re.fullmatch(r"\w+\t(KEYWORD[123]|LITERAL[12])(\t\w*){0,2}", line)
        found += [] if good else [f"keywords.txt {line!r}"]
    return found


@pytest.mark.parametrize("form", [varied, exact], ids=["varied", "exact"])
def test_an_arduino_library_follows_the_specification(tmp_path, form):
    artifact = artifact_from(form())
    write_target(artifact, "arduino", tmp_path / artifact.name)
    assert arduino_problems(tmp_path / artifact.name) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("library.properties", "version=1.2.3", "version=1.1c", "version"),
        ("library.properties", "category=Signal Input/Output", "category=Control", "category"),
        ("library.properties", "maintainer=", "someone=", "maintainer missing"),
        ("library.properties", "includes=varied.h", "includes=other.h", "includes other.h"),
        ("keywords.txt", "varied\tKEYWORD2", "varied KEYWORD2", "keywords.txt 'varied KEYWORD2'"),
    ],
)
def test_the_check_of_arduino_libraries_notices(tmp_path, file, old, new, problem):
    write_target(artifact_from(varied()), "arduino", tmp_path / "varied")
    path = tmp_path / "varied" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert arduino_problems(tmp_path / "varied") == [problem]


ARDUINO_H = """#include <cstdio>
#include <cstdlib>
struct { void begin(long) {} void println(const char *s) { std::puts(s); } void print(const char *s) { std::puts(s); }
  void println(double v, int) { std::printf("%.9g\\n", v); } void println(unsigned long) {} void println(int v)
  { std::printf("%d\\n", v); } } Serial;
static inline unsigned long micros() { return 0; }
[[noreturn]] static inline void delay(unsigned long) { std::exit(0); }
void setup(); void loop();
int main() { setup(); for (;;) loop(); }
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_arduino_sketch_compiles_as_cpp_and_prints_the_answer(tmp_path):
    artifact = discrete_oscillator()
    write_target(artifact, "arduino", tmp_path)
    (tmp_path / "Arduino.h").write_text(ARDUINO_H)
    run("gcc", "-std=c99", "-c", "-Isrc", *(tmp_path / "src").glob("*.c"), cwd=tmp_path)
    sources = ["-x", "c++", "examples/SelfTest/SelfTest.ino", "-x", "none", "oscillator.o", "oscillator_selftest.o"]
    printed = compile_and_run(tmp_path, sources, "-Isrc", "-I.", "-include", "Arduino.h", compiler=["g++"])
    passed, _, *values = printed.splitlines()
    assert passed == "self-test passed"
    np.testing.assert_allclose([float(value) for value in values], artifact.form([1.0, 0.0, 0.0]), rtol=1e-8)


# ---- PlatformIO


def platformio_problems(manifest: dict[str, Any]) -> list[str]:
    """What library.json has against PlatformIO's rules for manifests."""
    found = [f"{key} missing" for key in ("name", "version") if not manifest.get(key)]
    rules = {"name": r"[^:;/,@<>]{1,100}", "version": r"\d+\.\d+\.\d+", "description": r".{1,1000}"}
    found += [key for key, rule in rules.items() if not re.fullmatch(rule, str(manifest.get(key, "")))]
    lists = {"keywords": r"[a-z\d\-_+. ]{1,50}", "frameworks": r"[a-z\d\-_]+|\*", "platforms": r"[a-z\d\-_]+|\*"}
    for key, rule in lists.items():
        found += [f"{key} {item}" for item in manifest.get(key, []) if not re.fullmatch(rule, item)]
    known = {*rules, *lists, "headers", "build"}
    return found + [f"unknown {key}" for key in manifest if key not in known]


@pytest.mark.parametrize("form", [varied, exact], ids=["varied", "exact"])
def test_library_json_follows_the_rules_of_platformio(form):
    files = target_files(artifact_from(form()), "platformio")
    manifest = json.loads(files["library.json"])
    assert platformio_problems(manifest) == []
    assert all(f"src/{header}" in files for header in manifest["headers"])
    assert platformio_problems({**manifest, "keywords": ["Control!"], "version": "1.2"}) == [
        "version",
        "keywords Control!",
    ]


def test_a_long_list_of_names_still_fits_the_manifest():
    inputs = [Signal(f"a_rather_long_name_of_an_input_number_{index}") for index in range(60)]
    form = SymbolicMap(inputs, {"y": 2.0}, name="long")
    manifest = json.loads(target_files(artifact_from(form.rename(name="long_names")), "platformio")["library.json"])
    assert platformio_problems(manifest) == []


@pytest.mark.skipif(PIO is None, reason="PlatformIO is not installed")
def test_platformio_packs_the_library(tmp_path):
    write_target(artifact_from(varied()), "platformio", tmp_path / "varied")
    core = {"PLATFORMIO_CORE_DIR": str(tmp_path / "core"), "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no"}
    assert PIO is not None
    run(PIO, "pkg", "pack", tmp_path / "varied", "-o", tmp_path, cwd=tmp_path, **core)
    assert (tmp_path / "varied-1.2.3.tar.gz").is_file()


# ---- LaTeX


def test_latex_is_balanced_and_read_by_a_parser_of_mathematics():
    from matplotlib.mathtext import MathTextParser

    form = varied().select(["u", "lambda", "number", "x"])  # no cases: the parser does not know them
    (text,) = target_files(artifact_from(form), "latex").values()
    body = text.partition(r"\begin{align}")[2].partition(r"\end{align}")[0]
    equations = body.strip().split(r" \\" + "\n")
    assert len(equations) == 4
    for equation in equations:
        MathTextParser("path").parse(f"${equation.replace('&=', '=')}$")
    (whole,) = target_files(artifact_from(varied()), "latex").values()
    plain = re.sub(r"\\[{}]", "", whole)
    assert plain.count("{") == plain.count("}")
    for name in ("align", "tabular", "cases"):
        assert whole.count(f"\\begin{{{name}}}") == whole.count(f"\\end{{{name}}}") == 1
    assert r"*/ 50\%" in whole
