"""The most instructions that a call can take: the longest path through the machine code.

The compiled function is disassembled and walked as an abstract machine that knows integers as long as they are
constants, and nothing about data. A branch on a known counter goes one way, any other branch goes both ways. So a loop
that counts to a constant is simply walked to its end, and a walk that returns to where it was, knowing no more, has
found a loop without a known end: then there is no bound.

An instruction that an IT block may skip is counted, so the bound can be above what any input costs.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

from sindyrl.export.emulate import Image

_MAX_STATES = 400_000  # a few seconds
_WORD = 0xFFFF_FFFF
_FLAGS = -1
"""Stands for the condition flags where registers are listed."""

Known = tuple[tuple[int, Any], ...]  # (register, its value), of those that are known and matter, sorted


def instruction_bound(image: Image) -> int | None:
    """Most instructions of one call, function entry to return, called functions included.

    None if capstone is not installed or the processor is no ARM; and if there is a loop whose number of rounds depends
    on data (floating point in software has such), a recursion, or a jump to a computed address.
    """
    try:
        import capstone  # noqa: F401
    except ImportError:
        return None
    if image.processor.riscv:
        return None
    try:
        return _Walk(_Code(image.elf)).bound(image.entry)
    except _Unbounded:
        return None


class _Unbounded(Exception):
    """No bound can be given."""


@dataclasses.dataclass(frozen=True)
class _Step:
    """What one instruction does, as far as the walk cares.

    targets : where it may jump      falls : whether the next instruction may follow      callee : function called
    predicated : may be skipped      reads, writes : core registers and `_FLAGS`
    """

    address: int
    following: int
    instruction: Any
    targets: tuple[int, ...]
    falls: bool
    callee: int | None
    predicated: bool
    reads: frozenset[int]
    writes: frozenset[int]


class _Code:
    """Instructions by address, decoded when asked for."""

    def __init__(self, elf: bytes) -> None:
        import capstone
        from capstone import arm
        from elftools.elf.elffile import ELFFile

        self.arm = arm
        self.segments = [
            (part["p_vaddr"], part.data())
            for part in ELFFile(io.BytesIO(elf)).iter_segments()
            if part["p_type"] == "PT_LOAD"
        ]
        self.decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
        self.decoder.detail = True
        self.steps: dict[int, _Step] = {}
        core = [getattr(arm, f"ARM_REG_R{index}") for index in range(13)]
        self.caller_saved = frozenset([*core[:4], core[12], arm.ARM_REG_LR, _FLAGS])
        self.tracked = frozenset(core)

    def step(self, address: int) -> _Step:
        if address not in self.steps:
            self._decode(address)
        return self.steps[address]

    def _decode(self, address: int) -> None:
        group = self._disassemble(address, 1)
        if group[0].mnemonic.startswith("it"):  # the conditions of what follows are written in it
            group = self._disassemble(address, len(group[0].mnemonic))
        for instruction in group:
            self.steps[instruction.address] = self._understand(instruction)

    def _disassemble(self, address: int, count: int) -> list[Any]:
        for start, data in self.segments:
            if start <= address < start + len(data):
                found = list(self.decoder.disasm(data[address - start :][: 4 * count], address, count))
                if len(found) == count:
                    return found
        raise _Unbounded

    def _understand(self, instruction: Any) -> _Step:
        arm, operands = self.arm, instruction.operands
        predicated = instruction.cc not in (arm.ARM_CC_AL, arm.ARM_CC_INVALID)
        read, written = map(set, instruction.regs_access())
        if instruction.update_flags or arm.ARM_REG_CPSR in written:
            written.add(_FLAGS)
        if predicated:
            read.add(_FLAGS)
        targets: tuple[int, ...] = ()
        falls, callee = True, None
        if instruction.id in (arm.ARM_INS_B, arm.ARM_INS_CBZ, arm.ARM_INS_CBNZ):
            targets, falls = (operands[-1].imm & ~1,), predicated or instruction.id != arm.ARM_INS_B
        elif instruction.id == arm.ARM_INS_BL:
            callee = operands[-1].imm & ~1
            written |= self.caller_saved
        elif self._returns(instruction):
            falls = predicated
        elif instruction.id == arm.ARM_INS_UDF:
            falls = False
        elif (
            arm.ARM_REG_PC in written
            or arm.ARM_GRP_JUMP in instruction.groups
            or arm.ARM_GRP_CALL in instruction.groups
        ):
            raise _Unbounded
        return _Step(
            instruction.address,
            instruction.address + instruction.size,
            instruction,
            targets,
            falls,
            callee,
            predicated,
            frozenset(read & self.tracked) | ({_FLAGS} & read),
            frozenset(written & self.tracked) | ({_FLAGS} & written),
        )

    def _returns(self, instruction: Any) -> bool:
        arm, operands = self.arm, instruction.operands
        if instruction.id == arm.ARM_INS_BX:
            return bool(operands[0].reg == arm.ARM_REG_LR)
        loads = instruction.id == arm.ARM_INS_POP or (
            instruction.id in (arm.ARM_INS_LDM, arm.ARM_INS_LDR)
            and any(arm.ARM_REG_SP in (part.reg, part.mem.base) for part in operands)
        )
        registers = [part.reg for part in operands if part.type == arm.ARM_OP_REG]
        return loads and arm.ARM_REG_PC in registers


class _Walk:
    """Longest paths, function by function. The ABI is relied on: a called function keeps r4 to r11."""

    def __init__(self, code: _Code) -> None:
        self.code = code
        self.bounds: dict[int, int | None] = {}  # None while it is being computed
        self.states = 0

    def bound(self, entry: int) -> int:
        if entry not in self.bounds:
            self.bounds[entry] = None
            needed = _needed(self.code, entry)
            for step in [self.code.step(address) for address in needed]:
                if step.callee is not None:
                    self.bound(step.callee)
            self.bounds[entry] = self._longest(entry, needed)
        found = self.bounds[entry]
        if found is None:
            raise _Unbounded  # recursion
        return found

    def _longest(self, entry: int, needed: dict[int, frozenset[int]]) -> int:
        """Depth first, without recursion; a state under way that is met again is a loop without end."""
        start: tuple[int, Known] = (entry, ())
        length: dict[tuple[int, Known], int | None] = {start: None}
        stack = [(start, self._successors(start, needed))]
        best = [0]
        while stack:
            state, successors = stack[-1]
            following = next(successors, None)
            if following is None:
                stack.pop()
                length[state] = self._cost(state[0]) + best.pop()
                if stack:
                    best[-1] = max(best[-1], length[state] or 0)
            elif following not in length:
                self.states += 1
                if self.states > _MAX_STATES:
                    raise _Unbounded
                length[following] = None
                stack.append((following, self._successors(following, needed)))
                best.append(0)
            else:
                known = length[following]
                if known is None:
                    raise _Unbounded
                best[-1] = max(best[-1], known)
        return length[start] or 0

    def _cost(self, address: int) -> int:
        callee = self.code.step(address).callee
        return 1 if callee is None else 1 + (self.bounds[callee] or 0)

    def _successors(self, state: tuple[int, Known], needed: dict[int, frozenset[int]]) -> Iterator[tuple[int, Known]]:
        step, values = self.code.step(state[0]), dict(state[1])
        taken = _branches(self.code.arm, step, values)
        after = {key: value for key, value in values.items() if key not in step.writes}
        if not step.predicated:
            after |= _constants(self.code.arm, step, values)
        for target, possible in [*((target, taken is not False) for target in step.targets),
                                 (step.following, step.falls and (not step.targets or taken is not True))]:  # fmt: skip
            if possible:
                yield target, tuple(sorted((key, after[key]) for key in needed[target] if key in after))


def _needed(code: _Code, entry: int) -> dict[int, frozenset[int]]:
    """Address -> what must be known there to decide branches ahead.

    The rest is forgotten: walks that differ in nothing that matters meet again, and their number stays small.
    """
    before: dict[int, list[int]] = {entry: []}
    pending = [entry]
    while pending:
        step = code.step(pending.pop())
        for target in (*step.targets, *((step.following,) if step.falls else ())):
            if target not in before:
                before[target] = []
                pending.append(target)
            before[target].append(step.address)
    needed: dict[int, frozenset[int]] = dict.fromkeys(before, frozenset())
    changed = sorted(before, reverse=True)
    while changed:
        step = code.step(changed.pop())
        after: frozenset[int] = frozenset().union(
            *(needed[target] for target in step.targets), needed[step.following] if step.falls else ()
        )
        here = after if step.predicated else after - step.writes
        if step.targets or (step.writes & after and step.callee is None):
            here |= step.reads
        if here != needed[step.address]:
            needed[step.address] = here
            changed += before[step.address]
    return needed


# ---- integers


def _branches(arm: Any, step: _Step, values: dict[int, Any]) -> bool | None:
    """Whether the branch is taken; None if that is not known."""
    instruction = step.instruction
    if instruction.id in (arm.ARM_INS_CBZ, arm.ARM_INS_CBNZ):
        value = values.get(instruction.operands[0].reg)
        return None if value is None else (value == 0) == (instruction.id == arm.ARM_INS_CBZ)
    if not step.predicated:
        return True
    flags = values.get(_FLAGS)
    if flags is None:
        return None
    n, z, c, v = flags
    conditions = {
        "EQ": z, "NE": not z, "HS": c, "LO": not c, "MI": n, "PL": not n, "VS": v, "VC": not v,
        "HI": c and not z, "LS": z or not c, "GE": n == v, "LT": n != v, "GT": not z and n == v, "LE": z or n != v,
    }  # fmt: skip
    return {getattr(arm, f"ARM_CC_{name}"): bool(value) for name, value in conditions.items()}[instruction.cc]


def _constants(arm: Any, step: _Step, values: dict[int, Any]) -> dict[int, Any]:
    """Registers and flags that are constants after the instruction: moves, additions and comparisons of constants."""
    instruction = step.instruction
    parts = [_value(arm, part, values) for part in instruction.operands]
    target = instruction.operands[0].reg if instruction.operands else 0
    if instruction.id in (arm.ARM_INS_MOV, arm.ARM_INS_MOVW) and len(parts) == 2 and parts[1] is not None:
        return {target: parts[1]} if target in step.writes else {}
    if instruction.id == arm.ARM_INS_MOVT and parts[0] is not None and parts[1] is not None:
        return {target: (parts[1] << 16) | (parts[0] & 0xFFFF)}
    left, right = parts[-2:] if len(parts) >= 2 else (None, None)
    if left is None or right is None:
        return {}
    if instruction.id in (arm.ARM_INS_ADD, arm.ARM_INS_CMN):
        total, flags = _add(left, right, 0)
    elif instruction.id in (arm.ARM_INS_SUB, arm.ARM_INS_CMP):
        total, flags = _add(left, right ^ _WORD, 1)
    else:
        return {}
    found = {_FLAGS: flags} if _FLAGS in step.writes else {}
    return found | ({target: total} if target in step.writes else {})


def _value(arm: Any, part: Any, values: dict[int, Any]) -> int | None:
    if part.type == arm.ARM_OP_IMM:
        return int(part.imm) & _WORD
    plain = part.type == arm.ARM_OP_REG and part.shift.type == arm.ARM_SFT_INVALID
    return values.get(part.reg) if plain else None


def _add(a: int, b: int, carry: int) -> tuple[int, tuple[bool, bool, bool, bool]]:
    """The sum of two words and the flags N, Z, C, V."""
    total = a + b + carry
    word = total & _WORD
    overflow = bool(~(a ^ b) & (a ^ word) & 0x8000_0000)
    return word, (word >> 31 == 1, word == 0, total > _WORD, overflow)
