"""The call that says how a signal is handled: calls that we are told of should not fail when a child ends.

Until we have taken the question, a signal ends the kernel's wait for our answer. Then a call that nothing interrupts
otherwise, such as stat(2), fails with EINTR, unless the signal's handler wants calls to begin again (SA_RESTART).
Shells have handlers for SIGCHLD that do not, and the first process of a step gets that signal for every orphan.
"""

import struct
from contextlib import suppress
from functools import partial

from builder.sandbox.recorder.call import Call, Handler

_SA_RESTART = 0x10000000
_FIRST_HANDLER = 2
"""SIG_DFL and SIG_IGN are less."""


def _begin_again(call: Call, form: struct.Struct) -> None:
    """Let the handler have the flag; `form` is the beginning of the kernel's `struct sigaction`: handler and flags."""
    address = call.address(1)
    if address:
        handler, flags = form.unpack(call.tasks.read(call.pid, address, form.size))
        if handler >= _FIRST_HANDLER and not flags & _SA_RESTART:
            with suppress(OSError):  # it is better to have this handler than none
                call.tasks.write(call.pid, address, form.pack(handler, flags | _SA_RESTART))


WIDE: dict[str, Handler] = {"rt_sigaction": partial(_begin_again, form=struct.Struct("=QQ"))}
"""Of ABIs with 64 bits."""

NARROW: dict[str, Handler] = {"rt_sigaction": partial(_begin_again, form=struct.Struct("=II"))}
"""Of ABIs with 32."""
