"""The files in which package managers keep what is installed, and what they say.

Any of them may be forged or cut off: what makes no sense is left out, and nobody is asked to trust the rest.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator

from builder.attest.package import DatabaseError, Package
from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class Database:
    """A kind of file that lists packages."""

    name: str
    parse: Callable[[bytes], Iterable[Package]]
    most: int
    """Bytes that are read of it."""
    is_whole: bool = True
    """Whether it says nothing when cut off; else its beginning is enough."""


def database_of(path: str) -> Database | None:
    """The kind of the file at a path, by its name; None for all that lists no packages."""
    if path.endswith("/package.json"):
        return _NPM if _IN_NODE_MODULES.search(path) else None
    if path.endswith(_PYTHON_NAMES) and _PYTHON_PATHS.search(path):
        return _PYTHON
    if path.startswith("var/lib/dpkg/status.d/") and not path.endswith(".md5sums"):
        return _DPKG
    return _AT_PATHS.get(path)


# --- dpkg


def parse_dpkg(data: bytes) -> Iterator[Package]:
    """The status of dpkg, or a file of status.d, which images without dpkg have: deb-control(5)."""
    for fields in _paragraphs(data):
        state = fields.get("Status", "").split()
        is_there = not state or state[-1] not in {"not-installed", "config-files"}
        if is_there and fields.get("Package") and fields.get("Version"):
            source = fields.get("Source", "").partition(" ")[0]
            yield Package("deb", fields["Package"], fields["Version"], fields.get("Architecture", ""), source)


def _paragraphs(data: bytes) -> Iterator[dict[str, str]]:
    """Fields of paragraphs; of those with several lines the first."""
    for paragraph in re.split(r"\n[ \t]*\n", data.decode("utf-8", "replace")):
        lines = (line.partition(":") for line in paragraph.split("\n") if line[:1] not in {" ", "\t", ""})
        fields = {name: value.strip() for name, colon, value in lines if colon}
        if fields:
            yield fields


# --- apk


def parse_apk(data: bytes) -> Iterator[Package]:
    """The list of apk (https://wiki.alpinelinux.org/wiki/Apk_spec): one letter a field."""
    for fields in _paragraphs(data):
        if fields.get("P") and fields.get("V"):
            origin = fields.get("o", "")
            source = origin if origin != fields["P"] else ""
            yield Package("apk", fields["P"], fields["V"], fields.get("A", ""), source, fields.get("L", ""))


# --- Python


def parse_python(data: bytes) -> Iterator[Package]:
    """METADATA or PKG-INFO (https://packaging.python.org/specifications/core-metadata/): headers, and then a text."""
    head = re.split(rb"\r?\n\r?\n", data, maxsplit=1)[0]
    for fields in _paragraphs(head.replace(b"\r\n", b"\n")):
        if fields.get("Name") and fields.get("Version"):
            said = fields.get("License-Expression") or fields.get("License", "")
            yield Package("pypi", fields["Name"], fields["Version"], license="" if said == "UNKNOWN" else said)


# --- npm


def parse_npm(data: bytes) -> Iterator[Package]:
    """package.json of a package that is installed."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DatabaseError("it is not JSON") from error
    if isinstance(value, dict):
        name, version, said = (value.get(key) for key in ("name", "version", "license"))
        if isinstance(name, str) and isinstance(version, str) and name and version:
            yield Package("npm", name, version, license=said if isinstance(said, str) else "")


# --- rpm


def _parse_rpm(data: bytes) -> Iterable[Package]:
    from builder.attest.rpm import parse_rpm  # which brings SQLite and hundreds of lines of headers to few images

    return parse_rpm(data)


def _refuse_rpm(data: bytes) -> Iterable[Package]:  # noqa: ARG001 - whatever is in it
    raise DatabaseError("RPM's databases are read in the form of SQLite alone, which RPM has since 4.16")


_DPKG = Database("dpkg", parse_dpkg, 64 << 20)
_APK = Database("apk", parse_apk, 64 << 20)
_RPM = Database("rpm", _parse_rpm, 256 << 20)
_OLD_RPM = Database("rpm", _refuse_rpm, 0, is_whole=False)
_PYTHON = Database("Python", parse_python, 1 << 20, is_whole=False)
_NPM = Database("npm", parse_npm, 4 << 20)
_RPM_FOLDERS = ("var/lib/rpm/", "usr/lib/sysimage/rpm/", "usr/share/rpm/")
_AT_PATHS = {
    "var/lib/dpkg/status": _DPKG,
    "lib/apk/db/installed": _APK,
    "usr/lib/apk/db/installed": _APK,
    **{folder + "rpmdb.sqlite": _RPM for folder in _RPM_FOLDERS},
    **{folder + name: _OLD_RPM for folder in _RPM_FOLDERS for name in ("Packages", "Packages.db")},
}
_PYTHON_NAMES = ("/METADATA", "/PKG-INFO", ".egg-info")
_PYTHON_PATHS = re.compile(r"\.dist-info/METADATA$|\.egg-info/PKG-INFO$|\.egg-info$")
_IN_NODE_MODULES = re.compile(r"(?:^|/)node_modules/(?:@[^/]+/)?[^/]+/package\.json$")
