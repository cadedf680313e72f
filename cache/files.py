"""Digests of files by what stat says of them, as git's index has them: an unchanged context is never read again.

The digest of a file that is racy (`cache/stamps.py`) is not kept, so that it is read again.
"""

import hashlib
import json
import marshal
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO

from cache.db import Database, Statement
from cache.hashing import Hashed, read, read_many
from cache.stamps import STAMP_SIZE, size_of
from layers.digest import Digest
from layers.errors import StoreError

_BLOCK = 1 << 20

_ROWS_TO_SPARE = 100
_FILES_TO_SPARE = 100
"""Folders and files that nobody asked for are dropped only when they are many: other targets may ask for them."""

_MARSHAL = 2
"""A version of marshal's form that all interpreters read."""

_RULES_KEPT = 4
"""A folder may have several Dockerfiles, each with ignore rules of its own."""

_FORGET_RULES = """
DELETE FROM verdicts WHERE folder = ? AND rules NOT IN
(SELECT rules FROM verdicts WHERE folder = ? ORDER BY used DESC LIMIT ?)
"""

_ENCODING = sys.getfilesystemencoding()


def hash_file(path: str) -> Digest:
    """The SHA-256 digest of a file's bytes, read in blocks. A symbolic link is not followed: OSError (ELOOP)."""
    return Digest("sha256:" + read(path, sys.maxsize, time.time_ns).digest.hex())


def hash_stream(stream: BinaryIO) -> Digest:
    """The SHA-256 digest of what is left in a stream, read in blocks."""
    state = hashlib.sha256()
    while block := stream.read(_BLOCK):
        state.update(block)
    return Digest("sha256:" + state.hexdigest())


class FileTable:
    """The digests and ignore verdicts of all folders that were ever a build context."""

    def __init__(self, database: Database, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock = clock
        self._folders: dict[str, FolderTable] = {}

    def folder(self, path: str) -> "FolderTable":
        """What is remembered of one folder; its real path names it, and the same path gives the same table."""
        root = os.path.realpath(path)
        return self._folders.setdefault(root, FolderTable(self._database, root, self._clock))


class FolderTable:
    """What is remembered of the files of one folder. Loaded at the first question, kept by `save`.

    There is a row for each folder in it, which is unpacked if somebody asks for a file there: of a context with tens
    of thousands of files, a row for each took as long as to look at them.
    """

    def __init__(self, database: Database, root: str, clock: Callable[[], int]) -> None:
        self._database = database
        self._root = root
        self._key = os.fsencode(root)
        self._clock = clock
        self._packed: dict[str, bytes] | None = None
        self._opened: dict[str, _Files] = {}
        self._judged: dict[Digest, dict[str, int]] = {}

    def now(self) -> int:
        """The time by the clock that decides which files may change unseen, in nanoseconds since 1970."""
        return self._clock()

    def digest(self, path: str, stamp: bytes) -> Digest:
        """The digest of a file that has this stamp now; read only if it is not known. OSError if it cannot be read.

        `path` is relative to the folder, and its parents are no symbolic links.
        """
        folder, _, name = path.rpartition("/")
        files = self._opened.get(folder) or self._open(folder)
        files.asked.add(name)
        known = files.known.get(name, b"")
        if known.startswith(stamp):
            return _digest(known[STAMP_SIZE:])
        return files.learn(name, read(f"{self._root}/{path}", size_of(stamp), self._clock))

    def digests(self, files: Sequence[tuple[str, bytes]]) -> dict[str, Digest]:
        """The digests of files, by path and stamp, as far as they are known or all of their folder have to be read.

        The others are left to who asks for each of them, as is what cannot be read.
        """
        found: dict[str, Digest] = {}
        unknown = []
        for path, stamp in files:
            folder, _, name = path.rpartition("/")
            its_files = self._opened.get(folder) or self._open(folder)
            known = its_files.known.get(name, b"")
            if known.startswith(stamp):
                its_files.asked.add(name)
                found[path] = _digest(known[STAMP_SIZE:])
            elif not its_files.known:
                unknown.append((its_files, name, path, stamp))
        results = read_many([(f"{self._root}/{path}", stamp) for _, _, path, stamp in unknown], self._clock) or ()
        for (its_files, name, path, _), hashed in zip(unknown, results, strict=False):
            if hashed:
                its_files.asked.add(name)
                found[path] = its_files.learn(name, hashed)
        return found

    def verdicts(self, rules: Digest) -> dict[str, int]:
        """What one set of ignore rules says of paths that were seen before."""
        rows = self._database.rows("SELECT listing FROM verdicts WHERE folder = ? AND rules = ?", (self._key, rules))
        listing = json.loads(str(rows[0][0])) if rows else {}
        return {path: int(verdict) for verdict, paths in listing.items() for path in paths}

    def save(self) -> None:
        """Keep the digests found out since the folder was loaded, in one transaction.

        A table that cannot be written is no reason to end a build: the files are read again next time.
        """
        statements: list[Statement] = []
        new = [(folder, files) for folder, files in self._opened.items() if files.is_new]
        changed = [(self._key, _encoded(folder), files.packed()) for folder, files in new]
        if changed:
            statements.append(("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", changed))
        gone = (self._packed or {}).keys() - self._opened.keys()
        if len(gone) > len(self._opened) + _ROWS_TO_SPARE:
            rows = [(self._key, _encoded(folder)) for folder in gone]
            statements.append(("DELETE FROM files WHERE context = ? AND folder = ?", rows))
        if statements:
            with suppress(StoreError):
                self._database.write(*statements)
        for _, files in new:
            files.is_new = False

    def save_verdicts(self, rules: Digest, verdicts: Mapping[str, int]) -> None:
        """Keep what a set of ignore rules says; of each folder the sets that were used last are kept.

        What a build saves twice is added up: each of its looks at the folder may have seen another part of it.
        """
        judged = self._judged.setdefault(rules, {})
        judged.update(verdicts)
        listing: dict[int, list[str]] = {}
        for path, verdict in judged.items():
            listing.setdefault(verdict, []).append(path)
        row = (self._key, rules, json.dumps(listing), self._clock())
        with suppress(StoreError):
            self._database.write(
                ("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", [row]),
                (_FORGET_RULES, [(self._key, self._key, _RULES_KEPT)]),
            )

    def _open(self, folder: str) -> "_Files":
        if self._packed is None:
            rows = self._database.rows("SELECT folder, stamps FROM files WHERE context = ?", (self._key,))
            self._packed = {os.fsdecode(name): stamps for name, stamps in rows}  # type: ignore[arg-type, misc]  # BLOBs
        files = self._opened[folder] = _Files(self._packed.get(folder))
        return files


class _Files:
    """The files of one folder."""

    __slots__ = ("asked", "is_new", "known")

    def __init__(self, packed: bytes | None) -> None:
        self.known: dict[str, bytes] = {}
        """By name, stamp and digest."""
        self.asked: set[str] = set()
        self.is_new = False
        """Whether there is something that is not kept yet."""
        if packed:
            with suppress(ValueError, EOFError, TypeError):  # marshal's for what it did not write
                self.known = dict(marshal.loads(packed))  # noqa: S302 - runs nothing, and the store is the person's

    def learn(self, name: str, hashed: Hashed) -> Digest:
        """Take note of a file; of one that may change unseen, nothing is kept."""
        if hashed.stamp:
            self.known[name] = hashed.stamp + hashed.digest
            self.is_new = True
        return _digest(hashed.digest)

    def packed(self) -> bytes:
        """The form in which they are kept; without those that nobody asked for, if they are many."""
        if len(self.known) > 2 * len(self.asked) + _FILES_TO_SPARE:
            self.known = {name: known for name, known in self.known.items() if name in self.asked}
        return marshal.dumps(self.known, _MARSHAL)


def _digest(data: bytes) -> Digest:
    return str.__new__(Digest, "sha256:" + data.hex())  # nothing to check: they are so many bytes


def _encoded(path: str) -> bytes:
    return path.encode(_ENCODING, "surrogateescape")  # what os.fsencode does, in a third of its time
