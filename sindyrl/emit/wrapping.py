"""Breaking long lines of generated code where a person would."""

from __future__ import annotations

import math

WIDTH = 110


def wrapped(line: str, width: int = WIDTH) -> list[str]:
    """Break a long line before operators (or after commas), at the outermost place that fits."""
    lines: list[str] = []
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    while len(line) > width:
        cut = _break_position(line, len(indent) + 1, width)
        if cut is None:
            break
        lines.append(line[:cut].rstrip())
        line = indent + line[cut:].lstrip()
    return [*lines, line]


def _break_position(line: str, start: int, width: int) -> int | None:
    """Index of the last break of least nesting depth that fits the width, else of the first break beyond it."""
    depth, best, best_depth = 0, None, math.inf
    for index, character in enumerate(line):
        if index >= width and best is not None:
            break
        depth += (character in "({[") - (character in ")}]")
        operator = line[index : index + 3] in (" + ", " - ", " ? ", " : ")
        comma = index > 0 and line[index - 1] == "," and character == " "
        if index > start and (operator or comma) and depth <= best_depth:
            best, best_depth = index, depth
    return best
