"""The ABIs that programs of an image may use, each with the numbers that its system calls have."""

from collections.abc import Iterator, Mapping

from builder.sandbox.seccomp import numbers
from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class Abi:
    """One of the ways a processor's programs call the kernel."""

    architecture: int
    """The AUDIT_ARCH_* of linux/audit.h, which seccomp names the ABI by."""
    texts: tuple[str, ...]
    """From `numbers`."""

    def calls(self) -> Mapping[int, str]:
        """The names of the system calls, by number."""
        return dict(call for text in self.texts for call in _calls(text))


X86_64 = Abi(0xC000003E, (numbers.X86_64, numbers.COMMON))
I386 = Abi(0x40000003, (numbers.I386, numbers.TIME64, numbers.COMMON))
AARCH64 = Abi(0xC00000B7, (numbers.AARCH64, numbers.COMMON))
ARM = Abi(0x40000028, (numbers.ARM, numbers.TIME64, numbers.COMMON))

ABIS = {"x86_64": (X86_64, I386), "aarch64": (AARCH64, ARM)}
"""By the machine's name as of uname(2): its own ABI, and the one of its 32-bit programs."""


def _calls(text: str) -> Iterator[tuple[int, str]]:
    number = 0
    for word in text.split():
        if word.isdecimal():
            number = int(word)
        else:
            yield number, word
            number += 1
