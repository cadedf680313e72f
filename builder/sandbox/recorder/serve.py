"""The recorder of a step: a process that answers the system calls which the kernel cannot do with one id.

It is forked at the first of these calls, and ends with the step. All that it learns is on the files when a call
returns, so that it may end at any time.
"""

import errno
import os
import pickle
import signal
import struct
import sys

from builder.sandbox import syscalls
from builder.sandbox.recorder import files, ids, looks, notes, signals
from builder.sandbox.recorder.call import Call, Handler
from builder.sandbox.recorder.identity import Identity, Ids
from builder.sandbox.recorder.listener import Listener, Notification
from builder.sandbox.recorder.tasks import Tasks
from builder.sandbox.seccomp.abi import ABIS, Abi
from layers.data import dataclass

_CAP_SYS_PTRACE = 1 << 19
_WIDE_ABIS = 1 << 31
"""The bit __AUDIT_ARCH_64BIT of linux/audit.h."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What the first process of a step tells its recorder, beside two descriptors: its listener, and its root."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: int
    """No process of the step will have others."""
    owners: bool
    """See `program.Recording`."""

    def serialise(self) -> bytes:
        return pickle.dumps(self)

    @classmethod
    def parse(cls, data: bytes) -> "Opening":
        opening: Opening = pickle.loads(data)  # noqa: S301 - written by a process that has not run anything else yet
        return opening


def serve(opening: Opening, listener: int, root: int) -> None:
    """Answer calls for ever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # an interrupted answer would be half an answer
    tables = _tables(os.uname().machine, owners=opening.owners)
    _take_place(opening, root)
    identity = Identity(Ids.all(opening.uid), Ids.all(opening.gid), tuple(sorted(opening.groups)))
    recorder = _Recorder(Listener(listener), Tasks(identity if opening.owners else Identity(Ids.all(0), Ids.all(0))))
    while True:
        recorder.serve_one(tables)


Tables = dict[tuple[int, int], tuple[Handler, bool]]
"""By ABI and number of a call: who answers it, and whether its ids have 16 bits."""


def _tables(machine: str, *, owners: bool) -> Tables:
    table: Tables = {}
    for abi in ABIS[machine]:
        handlers = _handlers(abi) if owners else files.DEVICES | notes.HANDLERS
        for number, name in abi.calls().items():
            if name in handlers:
                table[abi.architecture, number] = (handlers[name], not _is_wide(abi) and f"{name}32" in handlers)
    return table


def _handlers(abi: Abi) -> dict[str, Handler]:
    sized = looks.WIDE | signals.WIDE if _is_wide(abi) else looks.NARROW | signals.NARROW
    return (
        notes.HANDLERS | files.DEVICES | files.MAKERS | files.Ownership().handlers() | ids.HANDLERS | looks.BOTH | sized
    )


def _is_wide(abi: Abi) -> bool:
    return bool(abi.architecture & _WIDE_ABIS)


def _take_place(opening: Opening, root: int) -> None:
    """Stand where `tasks` says, with no more rights than the step has.

    A name of the step may lead through /proc to other processes, in a container to ours too. What it leads to there is
    then what the step itself could reach; the right to trace is taken for moments only.
    """
    processes = syscalls.open_tree("/proc", recursive=True)  # hangs nowhere, so that no ".." leads out of it
    sys.path.clear()  # nothing of the step's files is a module of ours
    os.fchdir(root)
    os.chroot(".")
    os.fchdir(processes)
    permitted = syscalls.capabilities()[1] & (opening.capabilities | _CAP_SYS_PTRACE)
    syscalls.set_capabilities(permitted & opening.capabilities, permitted)


class _Recorder:
    def __init__(self, listener: Listener, tasks: Tasks) -> None:
        self._listener = listener
        self._tasks = tasks

    def serve_one(self, tables: Tables) -> None:
        """Answer one call."""
        told = self._listener.receive()
        if told is None:
            return
        handler, narrow = tables.get((told.architecture, told.number), (None, False))
        if handler is None:
            self._listener.proceed(told)
            return
        try:
            value = handler(Call(told, narrow, self._tasks, self._listener))
        except FileNotFoundError:
            self._listener.proceed(told)  # the kernel knows whether a file is missing or a descriptor
        except OSError as error:
            self._listener.fail(told, error.errno or errno.EIO)
        except (struct.error, OverflowError, ValueError):  # numbers that cannot be what the call wants
            self._listener.fail(told, errno.EINVAL)
        else:
            self._answer(told, value)

    def _answer(self, told: Notification, value: int | None) -> None:
        if value is None:
            self._listener.proceed(told)
        else:
            self._listener.answer(told, value)
