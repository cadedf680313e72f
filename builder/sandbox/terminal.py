"""A command on the person's terminal: keys go in unread, output comes back as it is, the size of the window follows."""

import fcntl
import os
import select
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from builder.sandbox.client import Step

_BLOCK = 1 << 16


def window(descriptor: int) -> tuple[int, int]:
    """Rows and columns of a terminal; (0, 0) if it is none."""
    try:
        rows, columns, _, _ = struct.unpack("=4H", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return (0, 0)
    return rows, columns


def relay(step: Step, keyboard: int, screen: int) -> None:
    """Connect our terminal with the step's until the step has ended. Only in the main thread, for signals' sake."""
    while step.terminal is None:
        if not step.receive():
            return
    master = step.terminal
    try:
        with _raw(keyboard), _following_window(keyboard, master):
            _pump(step, master, keyboard, screen)
    finally:
        os.close(master)


def _pump(step: Step, master: int, keyboard: int, screen: int) -> None:
    poll = select.poll()
    for descriptor in (step.fileno(), master, keyboard):
        poll.register(descriptor, select.POLLIN)
    running = True
    while running:
        ready = dict(poll.poll())
        if master in ready and not _copy(master, screen):
            poll.unregister(master)
        if keyboard in ready and not _copy(keyboard, master):
            poll.unregister(keyboard)
        if step.fileno() in ready:
            running = step.receive()
    while select.select([master], [], [], 0)[0] and _copy(master, screen):
        pass  # the last words


def _copy(source: int, target: int) -> bool:
    """Pass on what can be read now; False when the source has ended."""
    try:
        data = os.read(source, _BLOCK)
    except OSError:  # EIO: nobody has the other end of the terminal open
        return False
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]
    return bool(data)


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Make the terminal, if it is one, hand over every key at once; put it back whatever happens."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSANOW)  # keep what was typed ahead
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


@contextmanager
def _following_window(ours: int, theirs: int) -> Iterator[None]:
    """Give the step's terminal the size of ours, now and whenever it changes."""

    def resize(_signal: int = 0, _frame: FrameType | None = None) -> None:
        size = window(ours)
        if size != (0, 0):
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("=4H", *size, 0, 0))

    before = signal.signal(signal.SIGWINCH, resize)
    resize()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
