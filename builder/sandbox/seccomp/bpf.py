"""An assembler of seccomp's programs, classic BPF, that writes from the last instruction to the first.

All jumps of BPF lead forward, so whatever is jumped to has been written before: a label is the number of instructions
from there to the end of the program, and nothing has to be patched afterwards. Only instructions are used that the
kernel can follow by itself (`seccomp_is_const_allow` in kernel/seccomp.c): for a call that is allowed whatever its
arguments are, Linux 5.11 and later look into a bitmap instead of running the program.
"""

import struct
from collections.abc import Callable, Sequence

from layers.data import dataclass, field

NUMBER, ARCHITECTURE = 0, 4
"""Offsets into `struct seccomp_data` of linux/seccomp.h."""

LIMIT = 4096
"""BPF_MAXINSNS: the longest program that the kernel takes."""

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # of linux/bpf_common.h: LD|W|ABS, ALU|AND|K, RET|K
_JUMP, _JUMP_EQUAL, _JUMP_GREATER_EQUAL = 0x05, 0x15, 0x35  # JMP|JA, JMP|JEQ|K, JMP|JGE|K
_FARTHEST = 255
"""Instructions that a conditional jump can skip: its offsets are bytes."""

Label = int


def argument(index: int) -> int:
    """The offset of the low word of an argument; both families of processors are little-endian."""
    return 16 + 8 * index


@dataclass(slots=True)
class Program:
    """Instructions, the last one first. Each method writes one, before all that are there, and gives its label."""

    _reversed: list[tuple[int, int, int, int]] = field(default_factory=list)
    _returns: dict[int, Label] = field(default_factory=dict)

    def returns(self, value: int) -> Label:
        """End with a SECCOMP_RET_*; one that is there and near enough is used again."""
        label = self._returns.get(value)
        if label is None or not self._near(label):
            label = self._returns[value] = self._write(_RETURN, value)
        return label

    def load(self, offset: int, following: Label) -> Label:
        """Load a word of `struct seccomp_data`, and go on."""
        self._fall_through(following)
        return self._write(_LOAD, offset)

    def mask(self, bits: int, following: Label) -> Label:
        """Keep some bits of the word, and go on."""
        self._fall_through(following)
        return self._write(_AND, bits)

    def if_equal(self, value: int, then: Label, otherwise: Label) -> Label:
        """Branch on the word."""
        return self._branch(_JUMP_EQUAL, value, then, otherwise)

    def if_at_least(self, value: int, then: Label, otherwise: Label) -> Label:
        """Branch on the word as an unsigned number."""
        return self._branch(_JUMP_GREATER_EQUAL, value, then, otherwise)

    def assembled(self) -> bytes:
        """The program as an array of `struct sock_filter`."""
        if len(self._reversed) > LIMIT:
            raise ValueError(f"{len(self._reversed)} instructions are too many")
        return b"".join(struct.pack("=HBBI", *each) for each in reversed(self._reversed))

    def _write(self, code: int, value: int, then: int = 0, otherwise: int = 0) -> Label:
        self._reversed.append((code, then, otherwise, value))
        return len(self._reversed)

    def _branch(self, code: int, value: int, then: Label, otherwise: Label) -> Label:
        then = self._bridge(then)
        otherwise = self._bridge(otherwise)
        return self._write(code, value, self._distance(then), self._distance(otherwise))

    def _distance(self, label: Label) -> int:
        """What the next instruction has to skip to get there."""
        return len(self._reversed) - label

    def _near(self, label: Label) -> bool:
        return self._distance(label) < _FARTHEST  # less by one: the bridge of the other branch may come between

    def _bridge(self, label: Label) -> Label:
        """A label that a conditional jump reaches: the same, or that of a jump to it."""
        return label if self._near(label) else self._write(_JUMP, self._distance(label))

    def _fall_through(self, label: Label) -> None:
        if self._distance(label):
            self._write(_JUMP, self._distance(label))


def decide(program: Program, ranges: Sequence[tuple[int, Callable[[], Label]]]) -> Label:
    """Write a decision tree over the word; each range has its first number, and a function that writes what then."""
    first, write = ranges[len(ranges) // 2]
    if len(ranges) == 1:
        return write()
    above = decide(program, ranges[len(ranges) // 2 :])
    below = decide(program, ranges[: len(ranges) // 2])
    return program.if_at_least(first, above, below)
