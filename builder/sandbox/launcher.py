"""A program for one step: it makes a list of system calls, and the last of them turns it into the step's command.

A fork of Python would do as well, but costs five times as much: the kernel copies its page tables and drops them again,
and each page that either touches. This program is a page of machine code and one of data. The code is the same for all:

    take a call;  again: make it;  go on with the one that it says follows
    on an error:  go on with the other one that it names, if it tolerates the errno
                  else write its message, with the errno in it, to the channel, and end with 125

It is an ELF file (gABI, chapters 4 and 5) of two segments, in memory only.
"""

import json
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from builder.sandbox.calls import Argument, Call

_BASE = 0x400000
_CODE, _TEXTS = 0x100, 0x200
"""Where code and the texts of errnos are in the file, and from `_BASE`."""
_FILE_OF_DATA = 0x1000
_DATA = _BASE + 0x11000
"""Where the data is mapped: as far into a page as in the file, also where pages have 64 KiB."""
_ENTRY = struct.Struct("<11Q32s")
"""Number, six arguments, bytes to the entry that follows and to the one after a tolerated errno, message, its length,
and a bit for each errno."""
_TEXT_AT = 9
"""Where in a message the four characters of the errno are."""


class _Processor(NamedTuple):
    machine: int
    """e_machine."""
    code: bytes


_ERRNOS = b"".join(b"%4d" % number for number in range(256))
_NO_BITS = bytes(32)


_PROCESSORS = {
    "x86_64": _Processor(
        62,
        bytes.fromhex(
            "bb00104100"  # mov ebx, _DATA
            "488b03"  # again: mov rax, [rbx]
            "488b7b08 488b7310 488b5318 4c8b5320 4c8b4328 4c8b4b30"  # mov rdi.. rsi, rdx, r10, r8, r9, [rbx + 8..]
            "0f05"  # syscall
            "483d01f0ffff"  # cmp rax, -4095
            "7306"  # jae error
            "48035b38"  # add rbx, [rbx + 56]
            "ebd5"  # jmp again
            "f7d8"  # error: neg eax
            "0fa34358"  # bt [rbx + 88], eax
            "7306"  # jnc fail
            "48035b40"  # add rbx, [rbx + 64]
            "ebc7"  # jmp again
            "8b7348"  # fail: mov esi, [rbx + 72]
            "8b5350"  # mov edx, [rbx + 80]
            "8b0c8500024000"  # mov ecx, [rax * 4 + _BASE + _TEXTS]
            "894e09"  # mov [rsi + _TEXT_AT], ecx
            "bf03000000 b801000000 0f05"  # write(3, rsi, rdx)
            "bf7d000000 b8e7000000 0f05"  # exit_group(125)
        ),
    ),
    "aarch64": _Processor(
        183,
        struct.pack(
            "<31I",
            0x52820013,  # mov w19, #0x1000
            0x72A00833,  # movk w19, #0x41, lsl 16
            0xF9400268,  # again: ldr x8, [x19]
            0xA9408660,  # ldp x0, x1, [x19, #8]
            0xA9418E62,  # ldp x2, x3, [x19, #24]
            0xA9429664,  # ldp x4, x5, [x19, #40]
            0xD4000001,  # svc #0
            0xF9401E69,  # ldr x9, [x19, #56]
            0xB13FFC1F,  # cmn x0, #4095
            0x54000062,  # b.hs error
            0x8B090273,  # next: add x19, x19, x9
            0x17FFFFF7,  # b again
            0xCB0003E0,  # error: neg x0, x0
            0xD343FC0A,  # lsr x10, x0, #3
            0x9101626B,  # add x11, x19, #88
            0x386A696B,  # ldrb w11, [x11, x10]
            0x1200080C,  # and w12, w0, #7
            0x1ACC256B,  # lsr w11, w11, w12
            0xF9402269,  # ldr x9, [x19, #64]
            0x3707FEEB,  # tbnz w11, #0, next
            0xF9402661,  # ldr x1, [x19, #72]
            0xF9402A62,  # ldr x2, [x19, #80]
            0x5280400D,  # mov w13, #_TEXTS
            0x72A0080D,  # movk w13, #0x40, lsl 16
            0xB86079AE,  # ldr w14, [x13, x0, lsl #2]
            0xB800902E,  # stur w14, [x1, #_TEXT_AT]
            0xD2800060,  # mov x0, #3
            0xD2800808,  # mov x8, #64
            0xD4000001,  # svc #0
            0xD2800FA0,  # mov x0, #125
            0xD2800BC8,  # mov x8, #94
        )
        + struct.pack("<I", 0xD4000001),  # svc #0
    ),
}


def available(machine: str) -> bool:
    """Whether there is machine code for a processor."""
    return machine in _PROCESSORS


def program(calls: Sequence[tuple[bytes, Call]], machine: str) -> bytes:
    """The executable file for a machine that makes calls, the last of which has to be one that does not return.

    Each comes with the `message` of its failure.
    """
    data = _Data(len(calls) * _ENTRY.size)
    entries = b"".join(_entry(call, call.number(machine), message, data) for message, call in calls)
    return b"".join((_head(_PROCESSORS[machine], len(entries) + len(data.bytes)), entries, data.bytes))


@lru_cache(maxsize=256)  # most are the same in all steps
def message(key: str, text: str) -> bytes:
    """A line of JSON with an errno, for which it has four blanks, and a text."""
    return b'{"errno":    ,' + json.dumps({key: text}).encode()[1:] + b"\n"


class _Data:
    """What entries point to; it comes after them."""

    def __init__(self, start: int) -> None:
        self._start = _DATA + start
        self.bytes = bytearray()
        self._places: dict[bytes, int] = {}

    def shared(self, text: bytes) -> int:
        """The address of a text that may be there already."""
        if text not in self._places:
            self._places[text] = self.word(text)
        return self._places[text]

    def word(self, argument: Argument) -> int:
        """An argument as it is in a register."""
        if argument is None:
            return 0
        if isinstance(argument, int):
            return argument & 0xFFFFFFFFFFFFFFFF
        if isinstance(argument, tuple):
            argument = struct.pack(f"<{len(argument)}Q", *map(self.word, argument))
        place = self._start + len(self.bytes)
        self.bytes += argument + bytes(8 - len(argument) % 8)  # so that a string ends, and the next is aligned
        return place


def _entry(call: Call, number: int, message: bytes, data: _Data) -> bytes:
    words = [*map(data.word, call.arguments), 0, 0, 0, 0, 0, 0][:6]
    tolerated = sum(1 << number for number in call.tolerated).to_bytes(32, "little") if call.tolerated else _NO_BITS
    after, instead = (1 + call.passes) * _ENTRY.size, (1 + call.skips) * _ENTRY.size
    return _ENTRY.pack(number, *words, after, instead, data.shared(message), len(message), tolerated)


def _head(processor: _Processor, size: int) -> bytes:
    """All that is the same for all programs, but for the size of the data."""
    identity = b"\x7fELF\2\1\1" + bytes(9)
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH", 2, processor.machine, 1, _BASE + _CODE, 64, 0, 0, 64, 56, 3, 0, 0, 0
    )
    code = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, _FILE_OF_DATA, _FILE_OF_DATA, 0x10000)
    data = struct.pack("<IIQQQQQQ", 1, 6, _FILE_OF_DATA, _DATA, _DATA, size, size, 0x10000)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)  # not to be executed
    parts = ((header + code + data + stack, _CODE), (processor.code, _TEXTS), (_ERRNOS, _FILE_OF_DATA))
    head = b""
    for part, end in parts:
        head = (head + part).ljust(end, b"\0")
    return head
