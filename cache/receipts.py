"""Receipts: all that a build was told and saw, and what it said when the cache had answered it as a whole.

As long as that is all the same, building again gives the same image, and says the same: make and ninja call this
nothing to do. To find that out costs a look at each file of the context. Everything else that a build does before it
knows the same, such as importing what reads a Dockerfile, took nine tenths of the time.

What is read is compared by its bytes, what is only copied by its stamp. A receipt that does not hold costs a build the
time to look, and nothing else: receipts may be removed at any time.

Nothing is imported here that is not needed to look: a build with nothing to do imports this and the like of it alone.
"""

import marshal
import os
import sys
import zlib

from cache.stamps import look_at, look_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER = "receipts"
_FORMAT = 1
"""Of the parts of a receipt; another one is another form."""

_MOST = 64
"""Receipts that are kept in a store; each has some 60 bytes for every file of its context."""

Question = tuple[str | int | tuple[int, ...], ...]
"""What a process was asked by whom: words and numbers."""


class Receipt:
    """What was seen, and what was said of it."""

    __slots__ = ("environment", "folders", "links", "places", "said", "sizes", "texts")

    def __init__(
        self,
        environment: dict[str, str | None],
        links: dict[str, str],
        texts: dict[str, bytes | None],
        sizes: dict[str, int],
        folders: dict[str, dict[str, bytes]],
        places: dict[str, bytes],
        said: tuple[bytes, bytes] = (b"", b""),
    ) -> None:
        self.environment = environment
        """The variables that were asked for; None for those that are not set."""
        self.links = links
        """Paths to folders, and where they lead."""
        self.texts = texts
        """Files that were read, with their bytes; None for those that are not there."""
        self.sizes = sizes
        """Blobs that the image is made of, with their sizes: their names say what is in them."""
        self.folders = folders
        """Folders that were listed. An empty stamp is of what was left out unseen, whatever it is."""
        self.places = places
        """Paths that were looked at by themselves."""
        self.said = said
        """What went to standard output and to standard error."""

    def holds(self, environment: "Mapping[str, str]") -> bool:
        """Whether all is as it was. What cannot be looked at is not."""
        try:
            return (
                all(environment.get(name) == value for name, value in self.environment.items())
                and all(os.path.realpath(path) == target for path, target in self.links.items())
                and all(_read(path) == data for path, data in self.texts.items())
                and all(os.stat(path).st_size == size for path, size in self.sizes.items())
                and all(look_at(path) == stamp for path, stamp in self.places.items())
                and all(_is_same(folder, names) for folder, names in self.folders.items())
            )
        except OSError:
            return False


def find(root: str, question: Question) -> Receipt | None:
    """The receipt for a question in a store; None if there is none."""
    try:
        with open(_path(root, question), "rb") as file:
            form, asked, parts = marshal.loads(file.read())  # noqa: S302 - runs nothing, and the store is the person's
            return Receipt(*parts) if (form, asked) == (_form(), question) else None
    except (OSError, ValueError, EOFError, TypeError):  # marshal's for what it did not write
        return None


def keep(root: str, question: Question, receipt: Receipt) -> None:
    """Write a receipt, in place of an older one for the same question; OSError if that cannot be done.

    It is not synced: what is left of it after a power failure does not load, or holds.
    """
    path = _path(root, question)
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    parts = (
        *(receipt.environment, receipt.links, receipt.texts, receipt.sizes),
        *(receipt.folders, receipt.places, receipt.said),
    )
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(marshal.dumps((_form(), question, parts)))
    os.replace(temporary, path)
    kept = sorted(os.scandir(folder), key=lambda item: item.stat().st_mtime_ns, reverse=True)
    for item in kept[_MOST:]:
        os.unlink(item.path)


def _form() -> tuple[int, str]:
    return _FORMAT, sys.version  # marshal's form is that of one version of the interpreter


def _path(root: str, question: Question) -> str:
    return os.path.join(root, _FOLDER, f"{zlib.crc32(repr(question).encode(errors='surrogatepass')):08x}")


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _is_same(folder: str, names: dict[str, bytes]) -> bool:
    """Whether a folder has just these names, of these stamps; an empty one goes for anything."""
    count = 0
    with os.scandir(folder) as found:
        for item in found:
            stamp = names.get(item.name)
            if stamp is None or (stamp and look_of(item.stat(follow_symlinks=False)) != stamp):
                return False
            count += 1
    return count == len(names)
