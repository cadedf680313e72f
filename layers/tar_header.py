"""The blocks of a tar that stand before an entry's content, written in one form and read in all that are met.

Written: USTAR (POSIX.1-1988), after a PAX header (POSIX.1-2001) only where USTAR cannot say it, so that the same entry
always gives the same bytes. Read: USTAR, V7, PAX and GNU, by the rules that Docker's reader has for layers. Both work
by hand, since a layer has tens of thousands of entries: the standard library takes 280 us for each.
"""

import os
import re
from functools import lru_cache
from struct import Struct
from typing import NamedTuple, Self
from zlib import adler32

from layers.entry import DIRECTORY, FILE, SECOND, Entry, Kind
from layers.errors import ImageError

BLOCK = 512
"""Everything in a tar is padded to a multiple of this."""

ZEROS = bytes(BLOCK)

# name, mode uid gid, size mtime, checksum, type, link, magic and version, (uname, gname), major minor, prefix
_HEADER = Struct("100s 8s8s8s 12s12s 8s c 100s 8s 64x 8s8s 155s 12x")
_WRITTEN = Struct("100s 48s 8s c 100s 8s 64x 16s 155s 12x")
"""The same, with the numbers that stand side by side in one field."""
_USTAR = b"ustar\0"
_VERSION = _USTAR + b"00"
_NUMBERS = b"%07o\0%07o\0%07o\0%011o\0%011o\0"
"""Mode, owner and group, size and time."""
_DEVICE = b"%07o\0%07o\0"
_NO_DEVICE = _DEVICE % (0, 0)
_XATTR = b"SCHILY.xattr."
_MOST = 8**7
"""One more than the largest owner that has room in a header."""
_LARGEST = 8**11
"""One more than the largest size or time."""
_TYPES = {
    Kind.FILE: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}
# NUL is V7's file; 7 is a "contiguous" file.
_KINDS = {letter: kind for kind, letter in _TYPES.items()} | {b"\0": Kind.FILE, b"7": Kind.FILE}
_NOBODY = 2**32 - 1
"""(uid_t) -1, which chown(2) takes for "leave it"; so does Docker, and what it leaves is root's."""
_TIME = rb"(-?)(\d{1,18})(?:\.(\d*))?"
_DIGITS = rb"\d{1,19}"


class TarError(ImageError):
    """Bytes that should be a tar are none, or one that says what pybuild cannot take."""


def encode(entry: Entry) -> bytes:
    """The blocks that stand before an entry's content: its USTAR header, after a PAX header if one is needed."""
    path, kind, mode, uid, gid, size, mtime_ns, target, device, xattrs, _ = entry
    records: list[tuple[bytes, bytes]] = []
    prefix, name = _split_name(f"{path}/" if kind is DIRECTORY else path, records)
    link = _link(target, records) if target else b""
    numbers = (
        mode & 0o7777,
        uid if 0 <= uid < _MOST else _recorded(b"uid", uid, records),
        gid if 0 <= gid < _MOST else _recorded(b"gid", gid, records),
        0 if kind is not FILE else size if 0 <= size < _LARGEST else _recorded(b"size", size, records),
        time if 0 <= (time := mtime_ns // SECOND) < _LARGEST else _recorded(b"mtime", time, records),
    )
    for xattr, value in xattrs:
        records.append((_XATTR + _escape(os.fsencode(xattr)), value))
    header = _header(
        name, _NUMBERS % numbers, _TYPES[kind], link, _DEVICE % device if any(device) else _NO_DEVICE, prefix
    )
    return _pax_header(records) + header if records else header


def _header(name: bytes, numbers: bytes, letter: bytes, link: bytes, device: bytes, prefix: bytes) -> bytes:
    # The checksum is the sum of all bytes, with blanks in its own place. adler32's lower half is 1 + the sum, modulo
    # 65521, which that of our ASCII never comes to. This takes a tenth of the time of sum().
    checksum = (adler32(b"".join((name, numbers, b"        ", letter, link, _VERSION, device, prefix))) & 0xFFFF) - 1
    return _WRITTEN.pack(name, numbers, b"%06o\0 " % checksum, letter, link, _VERSION, device, prefix)


def _split_name(name: str, records: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """USTAR's prefix and name. What does not fit goes to the records, and old readers get something like it."""
    if name == "/":
        name = "./"
    if name.isascii():
        if len(name) <= 100:
            return b"", name.encode()
        at = name.rfind("/", 0, min(156, len(name) - 1))
        if at > 0 and len(name) - at - 1 <= 100:
            return name[:at].encode(), name[at + 1 :].encode()
    _record_name(b"path", name, records)
    return b"", name.encode("ascii", "replace")[:100]


def _link(target: str, records: list[tuple[bytes, bytes]]) -> bytes:
    if len(target) > 100 or not target.isascii():
        _record_name(b"linkpath", target, records)
    return target.encode("ascii", "replace")[:100]


def _record_name(key: bytes, name: str, records: list[tuple[bytes, bytes]]) -> None:
    data = os.fsencode(name)
    binary = (b"hdrcharset", b"BINARY")
    if binary not in records and not _is_utf8(data):
        records.insert(0, binary)
    records.append((key, data))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _recorded(key: bytes, number: int, records: list[tuple[bytes, bytes]]) -> int:
    """What stands in a header for a number that has no room there."""
    records.append((key, b"%d" % number))
    return 0


def _pax_header(records: list[tuple[bytes, bytes]]) -> bytes:
    """A header of type x, with its content: what is said here goes for the next entry."""
    content = b"".join(_record(key, value) for key, value in records)
    header = _header(b"././@PaxHeader", _NUMBERS % (0o644, 0, 0, len(content), 0), b"x", b"", _NO_DEVICE, b"")
    return header + content + ZEROS[: -len(content) % BLOCK]


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE` and a newline, where the length counts its own digits too."""
    others = len(key) + len(value) + 3
    length = others
    while length != others + len(str(length)):
        length = others + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


class Header(NamedTuple):
    """The fields of a header block, still as its bytes."""

    name: bytes
    mode: bytes
    uid: bytes
    gid: bytes
    size: bytes
    mtime: bytes
    checksum: bytes
    type: bytes
    link: bytes
    magic: bytes
    major: bytes
    minor: bytes
    prefix: bytes

    @classmethod
    def parse(cls, block: bytes) -> Self:
        """Take a block apart; TarError if its checksum says that it is no header."""
        header = cls._make(_HEADER.unpack(block))
        checksums = _checksums(block)
        if header.checksum == b"%06o\0 " % checksums[0]:  # as nearly all tars have it
            return header
        try:
            if _number(header.checksum) in checksums:
                return header
        except TarError:
            pass  # any text is here where a tar has its checksum: that is no reason to quote it
        raise TarError("this is no tar, or a damaged one: the checksum of a header is wrong")

    @property
    def content_size(self) -> int:
        """Bytes that follow a header which is not an entry's own, such as a PAX header."""
        return _number(self.size)


def _checksums(block: bytes) -> tuple[int, ...]:
    """The sum of the bytes, with the field of the checksum as blanks; and with signed bytes, as old SunOS had it."""
    block = b"%b        %b" % (block[:148], block[156:])
    # In halves, whose sum is below the modulus of adler32.
    plain = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    if block.isascii():
        return (plain,)
    return plain, plain - 256 * sum(byte > 127 for byte in block)


class Extensions:
    """What PAX and GNU headers say of the next entry, or, global ones, of all that follow.

    No entry may come with more than `LIMIT` bytes of them, so that a forged tar cannot fill the memory.
    """

    LIMIT = 1 << 20

    def __init__(self) -> None:
        self._here: dict[bytes, bytes] = {}
        self._everywhere: dict[bytes, bytes] = {}
        self._bytes = 0

    @staticmethod
    def is_one(header: Header) -> bool:
        """Whether a header is none of an entry, but of what is to be `add`ed."""
        return header.type in b"xXgLK"

    def reserve(self, header: Header) -> int:
        """The size of the content that such a header has; TarError if it is too much."""
        size = header.content_size
        self._bytes += BLOCK + size
        if size < 0 or self._bytes > self.LIMIT:
            raise TarError(f"the tar has more than {self.LIMIT} bytes of headers before one entry")
        return size

    def add(self, header: Header, content: bytes) -> None:
        """Take the content of a header."""
        if header.type == b"L":
            self._here[b"path"] = _text(content)
        elif header.type == b"K":
            self._here[b"linkpath"] = _text(content)
        elif header.type == b"g":
            everywhere = _records(content)
            self._everywhere |= {key: everywhere[key] for key in (b"uid", b"gid", b"mtime") if key in everywhere}
        else:
            self._here |= _records(content)

    def take(self) -> dict[bytes, bytes]:
        """What is said of the entry that comes now; then all begins anew."""
        here, self._here, self._bytes = self._here, {}, 0
        return self._everywhere | here if self._everywhere else here

    def __bool__(self) -> bool:
        return bool(self._here)


def decode(header: Header, said: dict[bytes, bytes]) -> Entry:
    """The entry of a header and of what its extensions said."""
    kind = _kind(header, said)
    path = said.get(b"path") or _name(header)
    if header.type == b"\0" and path.endswith(b"/"):
        kind = Kind.DIRECTORY
    entry = Entry(
        _normal(path),
        kind,
        _number(header.mode) & 0o7777,
        _owner(said, b"uid", header.uid),
        _owner(said, b"gid", header.gid),
        _size(said, header) if kind is Kind.FILE else 0,
        _time(said, header),
    )
    if not entry.path and kind is not Kind.DIRECTORY:
        raise TarError("the tar has an entry without a name")
    if kind is Kind.SYMLINK or kind is Kind.HARDLINK:
        target = said.get(b"linkpath") or _text(header.link)
        entry = entry._replace(target=_normal(target) if kind is Kind.HARDLINK else _decoded(target))
    elif kind is Kind.CHARACTER or kind is Kind.BLOCK:
        entry = entry._replace(device=(_number(header.major), _number(header.minor)))
    return entry._replace(xattrs=_xattrs(said)) if said else entry


def _kind(header: Header, said: dict[bytes, bytes]) -> Kind:
    if header.type == b"S" or (said and any(key.startswith(b"GNU.sparse.") for key in said)):
        raise TarError("the tar has sparse files", hint="write it without tar's option --sparse")
    kind = _KINDS.get(header.type)
    if kind is None:
        raise TarError(f"the tar has an entry of type {header.type.decode('latin-1')!r}, which no layer may have")
    return kind


def _name(header: Header) -> bytes:
    name = _text(header.name)
    # GNU's magic is "ustar " and two bytes on; it keeps times where POSIX has the prefix.
    if header.magic.startswith(_USTAR) and header.prefix[0]:
        return _text(header.prefix) + b"/" + name
    return name


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _decoded(name: bytes) -> str:
    if b"\0" in name:
        raise TarError("the tar has a name with a NUL in it")
    return os.fsdecode(name)


def _normal(name: bytes) -> str:
    """Without a leading or trailing slash, and without what stands for nothing; `..` stays for others to refuse."""
    return "/".join([part for part in _decoded(name).split("/") if part and part != "."])


@lru_cache(maxsize=1024)  # modes, owners and times repeat
def _number(field: bytes) -> int:
    """Octal digits among blanks and NULs; or GNU's form for large ones, of two's complement after a set bit."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = _text(field.strip(b" \0")).rstrip(b" ")
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise TarError(f"the tar has {digits.decode('latin-1')!r} where a number should be")
    return int(digits, 8)


def _decimal(digits: bytes) -> int:
    if not re.fullmatch(_DIGITS, digits):
        raise TarError(f"the tar has {digits[:40].decode('latin-1')!r} where a number should be")
    return int(digits)


def _size(said: dict[bytes, bytes], header: Header) -> int:
    size = _decimal(said[b"size"]) if said.get(b"size") else _number(header.size)
    if size < 0:
        raise TarError("the tar has a file of negative size")
    return size


def _owner(said: dict[bytes, bytes], key: bytes, field: bytes) -> int:
    text = said.get(key)
    number = _number(field) if not text else -1 if text.startswith(b"-") else _decimal(text)
    return number if 0 <= number < _NOBODY else 0


def _time(said: dict[bytes, bytes], header: Header) -> int:
    text = said.get(b"mtime")
    if not text:
        return _number(header.mtime) * SECOND
    match = re.fullmatch(_TIME, text)
    if not match:
        raise TarError(f"the tar has {text[:40].decode('latin-1')!r} where a time should be")
    minus, seconds, fraction = match.groups()
    time = int(seconds) * SECOND + int((fraction or b"")[:9].ljust(9, b"0"))
    return -time if minus else time


def _xattrs(said: dict[bytes, bytes]) -> tuple[tuple[str, bytes], ...]:
    pairs = [(key[len(_XATTR) :], value) for key, value in said.items() if key.startswith(_XATTR)]
    return tuple(sorted((_decoded(_unescape(key)), value) for key, value in pairs))


def _records(content: bytes) -> dict[bytes, bytes]:
    """The keys and values of a PAX header (pax(1), "pax Extended Header")."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(content):
        digits, _, _ = content[at : at + 10].partition(b" ")
        end = at + _decimal(digits)
        key, equals, value = content[at + len(digits) + 1 : end].partition(b"=")
        if end > len(content) or not equals or not value.endswith(b"\n"):
            raise TarError("the tar has a damaged PAX header")
        records[key] = value[:-1]
        at = end
    return records


def _escape(xattr: bytes) -> bytes:
    """An attribute's name as a key, which ends at the first `=`; as GNU tar does it."""
    return xattr.replace(b"%", b"%25").replace(b"=", b"%3D")


def _unescape(key: bytes) -> bytes:
    return key.replace(b"%3D", b"=").replace(b"%25", b"%")
