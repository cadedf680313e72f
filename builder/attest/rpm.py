"""RPM's database in the form of SQLite: a table of headers (https://rpm-software-management.github.io/rpm/manual/)."""

import sqlite3
from collections.abc import Iterator
from struct import Struct, error

from builder.attest.package import DatabaseError, Package

_INTRO = Struct(">II")
"""Of a header in a database: how many index entries there are, and bytes of data behind them."""
_ENTRY = Struct(">IIiI")
"""Tag, type, offset into the data, count."""
_INT32, _STRING, _I18N_STRING = 4, 6, 9
_NAME, _VERSION, _RELEASE, _EPOCH, _LICENSE, _ARCH, _SOURCE = 1000, 1001, 1002, 1003, 1014, 1022, 1044
_WAL = slice(18, 20)
"""Where a database says that it has a log beside it (https://www.sqlite.org/fileformat2.html, 1.3)."""
_MOST_STEPS = 50_000_000
"""Of SQLite's machine: some seconds. A forged database could make it count for ever."""


def parse_rpm(data: bytes) -> Iterator[Package]:
    """All packages, in their order in the table; DatabaseError if it is no such database.

    It is read in memory, and as if it had no log: RPM moves all of that into the database when it closes it.
    """
    if not data.startswith(b"SQLite format 3\0"):
        raise DatabaseError("it is no database of SQLite")
    plain = bytearray(data)
    plain[_WAL] = b"\1\1"
    connection = sqlite3.connect(":memory:")
    try:
        # Its schema comes from the image, and must not run anything.
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.deserialize(bytes(plain))
        connection.set_progress_handler(lambda: 1, _MOST_STEPS)
        kinds = connection.execute("SELECT type FROM sqlite_schema WHERE name = 'Packages'").fetchall()
        if kinds != [("table",)]:
            raise DatabaseError("it has no table of packages")
        for (blob,) in connection.execute("SELECT blob FROM Packages ORDER BY hnum"):
            package = _package(_header(blob))
            if package is not None:
                yield package
    except (sqlite3.Error, error, TypeError) as failure:
        raise DatabaseError(f"it is damaged: {failure}") from failure
    finally:
        connection.close()


def _header(blob: bytes) -> dict[int, str]:
    """The texts and numbers of a header, by tag; of arrays the first."""
    count, size = _INTRO.unpack_from(blob)
    start = _INTRO.size + count * _ENTRY.size
    data = blob[start : start + size]
    values = {}
    for number in range(min(count, (len(blob) - _INTRO.size) // _ENTRY.size)):
        tag, kind, offset, _ = _ENTRY.unpack_from(blob, _INTRO.size + number * _ENTRY.size)
        if not 0 <= offset < len(data):
            continue
        if kind in {_STRING, _I18N_STRING}:
            values[tag] = data[offset : data.find(b"\0", offset)].decode("utf-8", "replace")
        elif kind == _INT32:
            values[tag] = str(int.from_bytes(data[offset : offset + 4], "big"))
    return values


def _package(header: dict[int, str]) -> Package | None:
    name, version, release = (header.get(tag, "") for tag in (_NAME, _VERSION, _RELEASE))
    if not name or not version or name == "gpg-pubkey":  # a key that somebody trusts is kept as if it were a package
        return None
    return Package(
        "rpm",
        name,
        f"{version}-{release}" if release else version,
        header.get(_ARCH, ""),
        header.get(_SOURCE, ""),
        header.get(_LICENSE, ""),
        header.get(_EPOCH, ""),
    )
