"""Compiles the profile to the program that the kernel runs at the system calls of a step."""

import os
from collections.abc import Callable, Mapping
from functools import partial

from builder.sandbox.seccomp import bpf
from builder.sandbox.seccomp.abi import ABIS
from builder.sandbox.seccomp.bpf import Label, Program
from builder.sandbox.seccomp.profile import KILL, UNKNOWN, Among, Verdict, verdict
from builder.sandbox.syscalls import can_filter

_WORDS = 1 << 32


def filter_for(machine: str) -> tuple[bytes, str]:
    """The filter for steps on this kernel; or none, and a warning that says why."""
    program = default_filter(machine)
    if not program:
        return b"", f"RUN has no seccomp filter: the system calls of this processor ({machine}) are not known"
    if not can_filter():
        return b"", f"RUN has no seccomp filter: this kernel ({os.uname().release}) has none"
    return program, ""


def default_filter(machine: str) -> bytes:
    """The filter for all ABIs of a machine, named as uname(2) does; empty if we have no numbers for it.

    A function of nothing else: compile it once.
    """
    return compiled(machine, verdict, unknown=UNKNOWN, foreign=KILL)  # numbers of another ABI would mean other calls


def compiled(machine: str, judge: Callable[[str], Verdict], *, unknown: int, foreign: int) -> bytes:
    """The program in which `judge` decides by a call's name.

    `unknown` is for numbers without a name, and `foreign` for ABIs that are none of the machine's. Empty if we have no
    numbers for it.
    """
    program = Program()
    otherwise = program.returns(foreign)
    for abi in reversed(ABIS.get(machine, ())):
        verdicts = {number: judge(call) for number, call in abi.calls().items()}
        by_number = program.load(bpf.NUMBER, _tree(program, verdicts, unknown))
        otherwise = program.if_equal(abi.architecture, by_number, otherwise)
    program.load(bpf.ARCHITECTURE, otherwise)
    return program.assembled() if machine in ABIS else b""


def _by_argument(program: Program, condition: Among) -> Label:
    tree = _tree(program, dict.fromkeys(condition.values, condition.then), condition.otherwise)
    return program.load(bpf.argument(condition.argument), program.mask(condition.mask, tree))


def _tree(program: Program, verdicts: Mapping[int, Verdict], default: Verdict) -> Label:
    """Decide by the word that is loaded."""
    return bpf.decide(program, [(first, _writer(program, each)) for first, each in _ranges(verdicts, default)])


def _writer(program: Program, decision: Verdict) -> Callable[[], Label]:
    if isinstance(decision, Among):
        return partial(_by_argument, program, decision)
    return partial(program.returns, decision)


def _ranges(verdicts: Mapping[int, Verdict], default: Verdict) -> list[tuple[int, Verdict]]:
    """All words from 0 on as ranges of one verdict: the first word of each, and the verdict."""
    ranges: list[tuple[int, Verdict]] = []
    following = 0

    def add(first: int, decision: Verdict) -> None:
        if first < _WORDS and (not ranges or ranges[-1][1] != decision):
            ranges.append((first, decision))

    for word in sorted(verdicts):
        if word > following:
            add(following, default)
        add(word, verdicts[word])
        following = word + 1
    add(following, default)
    return ranges
