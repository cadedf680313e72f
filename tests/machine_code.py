"""Tiny static programs, made byte by byte: they make system calls that no program of an image makes."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

BASE = 0x400000
"""Where the file is mapped; 0x10000 is the least that kernels allow."""
DATA = BASE + 0x80
"""Where the `data` of a program is: up to 128 bytes."""
CODE = BASE + 0x100

Call = tuple[int, ...]
"""A system call: its number and up to four arguments of 32 bits."""


@dataclass(frozen=True)
class Processor:
    """How to write for it; the registers are those of the number and of the arguments in turn."""

    elf_machine: int
    bits: int
    set_register: tuple[bytes, ...]
    """`mov register, imm32` without the number itself."""
    call: bytes
    negate: bytes
    """Turns the result into its negative, and that into the first argument."""
    exit: int

    def code(self, calls: Sequence[Call]) -> bytes:
        """Make the calls, and exit with the errno of the last."""
        code = b"".join(self._registers(call) + self.call for call in calls)
        return code + self.negate + self._registers((self.exit,)) + self.call

    def _registers(self, values: Call) -> bytes:
        return b"".join(move + struct.pack("<I", value) for move, value in zip(self.set_register, values, strict=False))


class Arm64(Processor):
    """Which has the immediate value inside an instruction, in two halves."""

    def _registers(self, values: Call) -> bytes:
        code = b""
        for register, value in zip((8, 0, 1, 2, 3), values, strict=False):
            low, high = value & 0xFFFF, value >> 16
            code += struct.pack("<2I", 0xD2800000 | low << 5 | register, 0xF2A00000 | high << 5 | register)
        return code


X86_64 = Processor(62, 64, (b"\xb8", b"\xbf", b"\xbe", b"\xba", b"\x41\xba"), b"\x0f\x05", b"\xf7\xd8\x89\xc7", exit=60)
I386 = Processor(3, 32, (b"\xb8", b"\xbb", b"\xb9", b"\xba", b"\xbe"), b"\xcd\x80", b"\xf7\xd8\x89\xc3", exit=1)
AARCH64 = Arm64(183, 64, (), struct.pack("<I", 0xD4000001), struct.pack("<I", 0xCB0003E0), exit=93)

PROCESSORS = {"x86_64": X86_64, "aarch64": AARCH64}
"""By the machine's name as of uname(2)."""

_MEMORY = 0x10000000
_MACHINE = 4 * 65
"""Where uname(2) puts the machine's name: five texts of 65 bytes, in this order."""
_CALLS = {"x86_64": (9, 63, 3, 257, 1), "aarch64": (222, 160, 57, 56, 64)}
"""mmap, uname, close, openat and write."""


def tells_machine(machine: str, path: str) -> bytes:
    """A program for a machine that writes the name of the machine that it finds itself on into a new file."""
    mmap, uname, close, openat, write = _CALLS[machine]
    return program(
        PROCESSORS[machine],
        (mmap, _MEMORY, 0x1000, 3, 0x32),  # readable, writable; private, here, of nothing
        (uname, _MEMORY),
        (close, 0),  # so that the file gets this number
        (openat, 0xFFFFFF9C, DATA, 0o101, 0o644),  # AT_FDCWD; to write, created
        (write, 0, _MEMORY + _MACHINE, len(machine)),
        (close, 0),
        data=path.encode() + b"\0",
    )


def program(processor: Processor, *calls: Call, data: bytes = b"") -> bytes:
    """An executable that makes the calls; its exit status is the errno of the last, or 0, or 256 less a result."""
    code = processor.code(calls)
    size = CODE - BASE + len(code)
    if processor.bits == 64:
        header = struct.pack("<HHIQQQIHHHHHH", 2, processor.elf_machine, 1, CODE, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)
    else:
        header = struct.pack("<HHIIIIIHHHHHH", 2, processor.elf_machine, 1, CODE, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        segment = struct.pack("<IIIIIIII", 1, 0, BASE, BASE, size, size, 5, 0x1000)
    ident = b"\x7fELF" + bytes([processor.bits // 32, 1, 1]) + bytes(9)
    return ((ident + header + segment).ljust(DATA - BASE, b"\0") + data).ljust(CODE - BASE, b"\0") + code
