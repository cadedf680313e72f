"""Digests of files by what stat says of them, as git's index has them: an unchanged context is never read again.

The digest of a file that is racy (`cache/stamps.py`) is not kept, so that it is read again.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO

from cache.db import Database, Statement
from cache.hashing import Hashed, read, read_many
from cache.stamps import size_of
from layers.digest import Digest
from layers.errors import StoreError

_BLOCK = 1 << 20

_ROWS_TO_SPARE = 1000
"""Rows of files that nobody asked for are dropped only when there are many: other targets may ask for them."""

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
    """What is remembered of the files of one folder. Loaded at the first question, kept by `save`."""

    def __init__(self, database: Database, root: str, clock: Callable[[], int]) -> None:
        self._database = database
        self._root = root
        self._key = os.fsencode(root)
        self._clock = clock
        self._known: dict[bytes, tuple[bytes, str]] | None = None
        self._asked: set[bytes] = set()
        self._fresh: list[tuple[bytes, bytes, bytes, Digest]] = []
        self._judged: dict[Digest, dict[str, int]] = {}

    def now(self) -> int:
        """The time by the clock that decides which files may change unseen, in nanoseconds since 1970."""
        return self._clock()

    def digest(self, path: str, stamp: bytes) -> Digest:
        """The digest of a file that has this stamp now; read only if it is not known. OSError if it cannot be read.

        `path` is relative to the folder, and its parents are no symbolic links.
        """
        if self._known is None:
            self._known = self._load()
        name = path.encode(_ENCODING, "surrogateescape")  # what os.fsencode does, in a third of its time
        self._asked.add(name)
        known = self._known.get(name)
        if known and known[0] == stamp:
            return str.__new__(Digest, known[1])  # it was checked when it was stored: half the time of this function
        return self._learn(name, read(f"{self._root}/{path}", size_of(stamp), self._clock))

    def learn(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Find out the digests of files, by path and stamp, that are not known: somebody is going to ask for them.

        What cannot be read is left to who asks.
        """
        if self._known is None:
            self._known = self._load()
        if 2 * len(self._known) > len(files):
            return  # most are as they were
        unknown = []
        for path, stamp in files:
            name = path.encode(_ENCODING, "surrogateescape")
            known = self._known.get(name)
            if known is None or known[0] != stamp:
                unknown.append((name, f"{self._root}/{path}", stamp))
        results = read_many([(path, stamp) for _, path, stamp in unknown], self._clock) or ()
        for (name, _, _), hashed in zip(unknown, results, strict=False):
            if hashed:
                self._learn(name, hashed)

    def _learn(self, name: bytes, hashed: Hashed) -> Digest:
        digest = str.__new__(Digest, f"sha256:{hashed.digest.hex()}")
        if hashed.stamp:
            assert self._known is not None, "it was loaded to find out that this is new"
            self._known[name] = hashed.stamp, digest
            self._fresh.append((self._key, name, hashed.stamp, digest))
        return digest

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
        gone = self._known.keys() - self._asked if self._known else frozenset()
        if len(gone) > len(self._asked) + _ROWS_TO_SPARE:
            statements.append(("DELETE FROM files WHERE folder = ? AND path = ?", [(self._key, name) for name in gone]))
        if self._fresh:
            statements.append(("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", self._fresh))
        if statements:
            with suppress(StoreError):
                self._database.write(*statements)
        self._fresh = []

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

    def _load(self) -> dict[bytes, tuple[bytes, str]]:
        rows = self._database.rows("SELECT path, stamp, digest FROM files WHERE folder = ?", (self._key,))
        return {path: (stamp, digest) for path, stamp, digest in rows}  # type: ignore[misc]  # as the schema says
