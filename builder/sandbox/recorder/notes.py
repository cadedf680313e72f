"""The calls on extended attributes: programs neither see our notes nor write any, also not when they copy a file."""

import errno
import os
import stat

from builder.sandbox.recorder.call import Call, Handler
from builder.sandbox.recorder.tasks import AT_FDCWD
from layers.owners import CAPABILITY, NOTES


def _set(name: bytes, attribute: bytes, *, follow: bool) -> int | None:
    """Say that a note has been written, and leave what is there alone."""
    text = os.fsdecode(attribute)
    if text in NOTES:
        return 0
    return 0 if text == CAPABILITY and _is_note(name, text, follow=follow) else None


def _list(call: Call, name: bytes, *, follow: bool) -> int | None:
    """List all but the notes; the arguments after the name are where to, and how many bytes there are."""
    names = os.listxattr(name, follow_symlinks=follow)
    shown = [each for each in names if not _is_note(name, each, follow=follow)]
    if len(shown) == len(names):
        return None
    data = b"".join(os.fsencode(each) + b"\0" for each in shown)
    room = call.address(2)
    if room:
        if room < len(data):
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        call.tasks.write(call.pid, call.address(1), data)
    return len(data)


def _is_note(name: bytes, attribute: str, *, follow: bool) -> bool:
    """Whether an attribute of a file is a note, as capabilities are of what is neither file nor folder."""
    if attribute != CAPABILITY:
        return attribute in NOTES
    mode = os.stat(name, follow_symlinks=follow).st_mode
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _path(call: Call) -> bytes:
    return call.name(AT_FDCWD, call.text(0))


def _opened(call: Call) -> bytes:
    return call.name(call.number(0), b"")


HANDLERS: dict[str, Handler] = {
    "setxattr": lambda call: _set(_path(call), call.text(1), follow=True),
    "lsetxattr": lambda call: _set(_path(call), call.text(1), follow=False),
    "fsetxattr": lambda call: _set(_opened(call), call.text(1), follow=True),
    "setxattrat": lambda call: _set(call.name(call.number(0), call.text(1)), call.text(3), follow=False),
    "listxattr": lambda call: _list(call, _path(call), follow=True),
    "llistxattr": lambda call: _list(call, _path(call), follow=False),
    "flistxattr": lambda call: _list(call, _opened(call), follow=True),
}
