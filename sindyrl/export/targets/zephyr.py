"""A Zephyr module: list its folder in ``ZEPHYR_EXTRA_MODULES`` (or a west manifest), set ``CONFIG_SINDYRL_<NAME>=y``.

The application then includes the header and links the function like any other Zephyr library. The self-test is
linked with ``CONFIG_SINDYRL_<NAME>_SELFTEST=y``: call ``<name>_selftest()`` once at start.
"""

from __future__ import annotations

from sindyrl.export.artifact import Artifact

CHECK = "CMake builds it against stand-ins for Zephyr's functions; Zephyr itself is not installed in the tests."

_CMAKE = """{banner}
if(CONFIG_{symbol})
  zephyr_include_directories(src)
  zephyr_library()
  zephyr_library_sources({sources})
  zephyr_library_sources_ifdef(CONFIG_{symbol}_SELFTEST src/{self_test})
  # Contraction off: a*b + c rounds twice, so that the board returns the verified bits.
  zephyr_library_compile_options(-ffp-contract=off -fno-fast-math)
endif()
"""

_KCONFIG = """{banner}
config {symbol}
\tbool "{title}"
{fpu}\thelp
\t  Links the generated C function {name}().
{period}
if {symbol}

config {symbol}_SELFTEST
\tbool "Known answers of {name}"
\thelp
\t  Links {name}_selftest(), which returns the number of outputs that miss
\t  their known value.

endif # {symbol}
"""


def files(artifact: Artifact) -> dict[str, str | bytes]:
    """``zephyr/module.yml``, ``CMakeLists.txt``, ``Kconfig``, and the C in ``src``."""
    banner = "\n".join(artifact.banner("# "))
    symbol = f"SINDYRL_{artifact.name.upper()}"  # Zephyr's own symbols share one name space
    fields = {"banner": banner, "name": artifact.name, "symbol": symbol, "self_test": artifact.file_names[2]}
    cmake = _CMAKE.format(**fields, sources=" ".join(f"src/{name}" for name in artifact.sources))
    kconfig = _KCONFIG.format(
        **fields,
        title=artifact.title[:100],
        fpu="\timply FPU if CPU_HAS_FPU\n" if artifact.number.startswith("float") else "",
        period=f"\t  Call it every {artifact.dt!r} s.\n" if artifact.dt is not None else "",
    )
    module = f"{banner}\nname: {artifact.name}\nbuild:\n  cmake: .\n  kconfig: Kconfig\n"
    return {
        "zephyr/module.yml": module,
        "CMakeLists.txt": cmake,
        "Kconfig": kconfig,
        **{f"src/{name}": text for name, text in artifact.texts.items()},
    }
