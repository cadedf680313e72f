"""The SQLite file of the cache. It remembers only what can be found out again: losing it costs time and nothing else.

One connection behind one lock: the threads of a build write few and small rows, and a lock is quicker than opening.
"""

# The package sqlite3 is this module and forms for dates, which are not used here and take longer to import than it.
import _sqlite3 as sqlite3
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

from layers.errors import StoreError

FORMAT = 3
"""Stored as `user_version`. A file with another number is put aside, and an empty one made."""

_BUSY_SECONDS = 30.0
"""Other builds hold the write lock for milliseconds; only a stopped process holds it for this long."""

_SCHEMA = """
CREATE TABLE records (
    key TEXT PRIMARY KEY,
    operation TEXT NOT NULL,
    parent TEXT,
    material BLOB NOT NULL,
    diff_id TEXT NOT NULL,
    unpacked INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    created TEXT NOT NULL,
    seconds REAL NOT NULL,
    used REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE contents (selector TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    context BLOB NOT NULL,
    folder BLOB NOT NULL,
    stamps BLOB NOT NULL,
    PRIMARY KEY (context, folder)
);
CREATE TABLE downloads (
    url TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    place TEXT NOT NULL,
    etag TEXT NOT NULL,
    last_modified TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE verdicts (
    folder BLOB NOT NULL,
    rules TEXT NOT NULL,
    listing TEXT NOT NULL,
    used INTEGER NOT NULL,
    PRIMARY KEY (folder, rules)
) WITHOUT ROWID;
"""

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_HINTS = {
    sqlite3.SQLITE_FULL: "the disk is full: remove something, or put the store elsewhere with --root",
    sqlite3.SQLITE_IOERR: "is the disk full or broken? put the store elsewhere with --root",
    sqlite3.SQLITE_READONLY: "the store must be writable: put it elsewhere with --root or PYBUILD_ROOT",
    sqlite3.SQLITE_CANTOPEN: "the store must be a folder of yours: name another one with --root or PYBUILD_ROOT",
    sqlite3.SQLITE_PERM: "the store must be a folder of yours: name another one with --root or PYBUILD_ROOT",
    sqlite3.SQLITE_BUSY: "another build has held it for half a minute: is one stopped?",
}

Row = tuple[object, ...]
Statement = tuple[str, Sequence[Sequence[object]]]
"""A statement, and the values of each time it is run."""


class Database:
    """An open cache.db, for any thread. Errors of SQLite leave it as StoreError.

    A damaged file is put aside as soon as the damage is seen, and the build goes on with an empty one.
    """

    def __init__(self, path: str) -> None:
        """Open or create the file; StoreError if the disk is full or read-only, or the file not ours."""
        self.path = path
        self.note = ""
        """One sentence for the person if the cache had to start empty; else empty."""
        self._lock = RLock()
        with _translated(path):
            self._connection = self._open()

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """All rows that a SELECT gives."""
        with self._lock, _translated(self.path):
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                self._start_over(error)
                return []

    def write(self, *statements: Statement) -> None:
        """Run statements in one transaction: all of it is kept, or nothing."""
        with self._lock, _translated(self.path):
            try:
                self._transact(statements)
            except sqlite3.DatabaseError as error:
                self._start_over(error)
                self._transact(statements)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _transact(self, statements: Sequence[Statement]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for query, rows in statements:
                self._connection.executemany(query, rows)
            self._connection.execute("COMMIT")
        except BaseException:
            # After a full disk SQLite may have rolled back by itself.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self.path)
        except _OtherFormatError as error:
            self._put_aside(str(error))
        except sqlite3.DatabaseError as error:
            if _code(error) not in _DAMAGE:
                raise
            self._put_aside(f"cache.db was damaged ({error})")
        return _connect(self.path)

    def _start_over(self, error: sqlite3.DatabaseError) -> None:
        """Go on with an empty file if this one is damaged; any other error is raised again."""
        if _code(error) not in _DAMAGE:
            raise error
        self._connection.close()
        self._put_aside(f"cache.db was damaged ({error})")
        self._connection = _connect(self.path)

    def _put_aside(self, reason: str) -> None:
        """Keep the file for whoever wants to look at it. Its journals go first: they would damage the new one."""
        self.note = f"the build cache starts empty: {reason}"
        try:
            for suffix in ("-wal", "-shm", ""):
                if os.path.lexists(self.path + suffix):
                    os.replace(self.path + suffix, f"{self.path}.old{suffix}")
        except OSError as error:
            raise StoreError(
                f"the damaged cache {self.path} cannot be replaced: {error.strerror}", hint="remove it by hand"
            ) from error


class _OtherFormatError(Exception):
    """The file is sound, and of another version of pybuild."""


def _connect(path: str) -> sqlite3.Connection:
    # No isolation level: transactions begin where this file says so, not where the sqlite3 module guesses.
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # With a write-ahead log, NORMAL may lose the last transactions in a power cut but never damages the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        version = _version(connection) or _create(connection)
        if version != FORMAT:
            raise _OtherFormatError(f"cache.db is of format {version}, and this version of pybuild writes {FORMAT}")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> int:
    # The mode is kept in the file: later openings find it set.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    if not _version(connection):  # else another build made the tables while this one waited
        if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise _OtherFormatError("cache.db is not of pybuild")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")
    return _version(connection)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _code(error: sqlite3.Error) -> int:
    """The primary result code; the higher bits only say more of it."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be used: {error}", hint=_HINTS.get(_code(error), "")) from error
