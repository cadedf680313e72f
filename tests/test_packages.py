"""What package managers say of an image: read of its layers, and told as SPDX."""

import json
import lzma
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest
import users

from builder.attest.databases import database_of, parse_apk, parse_dpkg, parse_npm, parse_python
from builder.attest.package import DatabaseError, Distribution, Package
from builder.attest.rpm import parse_rpm
from builder.attest.scan import Contents, contents_of
from builder.attest.spdx import Described, spdx_document
from cache.store import Store
from layers.digest import Digest
from layers.entry import Change, Entry, Kind, whiteout
from layers.layer import Layer, write_layer

DEBIAN = Distribution("debian", "12")
STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u4
Description: a library
 with more lines:
 .
 Version: 3

Package: gone
Status: deinstall ok config-files
Version: 1

Package: tar
Status: install ok installed
Architecture: amd64
Version: 1.34+dfsg-1
"""
LIBC = Package("deb", "libc6", "2.36-9+deb12u4", "amd64", "glibc")
TAR = Package("deb", "tar", "1.34+dfsg-1", "amd64")
APK = "C:Q1x=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:libc.so\n\nP:libcrypto3\nV:3.1.4-r1\no:openssl\n\n"
METADATA = (
    "Metadata-Version: 2.1\r\nName: Flask_Login\r\nVersion: 3.0\r\nLicense: MIT\r\n\r\nName: no\r\nVersion: 0\r\n"
)
RPMDB = users.CHECKOUT / "testdata/rpmdb.sqlite.xz"
"""A database that rpm 4.18 wrote when it installed two packages of a spec file."""


# --- databases


def test_dpkg_lists_what_is_installed() -> None:
    assert list(parse_dpkg(STATUS.encode())) == [LIBC, TAR]


def test_a_file_of_status_d_has_no_status() -> None:
    assert list(parse_dpkg(b"Package: tzdata\nVersion: 1\n")) == [Package("deb", "tzdata", "1")]


def test_apk_lists_packages() -> None:
    assert list(parse_apk(APK.encode())) == [
        Package("apk", "musl", "1.2.4-r2", "x86_64", license="MIT"),
        Package("apk", "libcrypto3", "3.1.4-r1", source="openssl"),
    ]


def test_python_packages_tell_of_themselves_in_headers() -> None:
    assert list(parse_python(METADATA.encode())) == [Package("pypi", "Flask_Login", "3.0", license="MIT")]


@pytest.mark.parametrize(
    ("text", "packages"),
    [
        ('{"name": "@a/b", "version": "1.0.0", "license": "ISC"}', [Package("npm", "@a/b", "1.0.0", license="ISC")]),
        ('{"name": "a", "version": "1", "license": {"type": "MIT"}}', [Package("npm", "a", "1")]),
        ('{"type": "commonjs"}', []),
        ("[]", []),
    ],
)
def test_npm_packages_have_a_name_and_a_version(text: str, packages: list[Package]) -> None:
    assert list(parse_npm(text.encode())) == packages


def test_json_that_is_none_is_a_note() -> None:
    with pytest.raises(DatabaseError):
        list(parse_npm(b"{"))


def test_rpm_lists_what_it_installed() -> None:
    packages = list(parse_rpm(lzma.decompress(RPMDB.read_bytes())))

    source = "hello-1.2-3.src.rpm"
    assert sorted(packages, key=lambda package: package.name) == [
        Package("rpm", "hello", "1.2-3", "noarch", source, "MIT", "4"),
        Package("rpm", "hello-libs", "1.2-3", "noarch", source, "MIT", "4"),
    ]


def sqlite(script: str, folder: Path) -> bytes:
    path = folder / "db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path.read_bytes()


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE other (a)",
        "CREATE VIEW Packages AS SELECT 1 AS hnum, x'00' AS blob",
        "CREATE TABLE Packages (hnum, blob); INSERT INTO Packages VALUES (1, x'0001')",
        "CREATE TABLE Packages (hnum, blob); INSERT INTO Packages VALUES (1, NULL)",
        "CREATE TABLE Packages (hnum)",
    ],
)
def test_a_forged_database_of_rpm_is_refused(script: str, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError):
        list(parse_rpm(sqlite(script, tmp_path)))


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", b"SQLite format 3\0" + bytes(4096)])
def test_what_is_no_database_of_sqlite_is_refused(data: bytes) -> None:
    with pytest.raises(DatabaseError):
        list(parse_rpm(data))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("var/lib/dpkg/status", "dpkg"),
        ("var/lib/dpkg/status.d/base-files", "dpkg"),
        ("var/lib/dpkg/status.d/base-files.md5sums", ""),
        ("backup/var/lib/dpkg/status", ""),
        ("lib/apk/db/installed", "apk"),
        ("usr/lib/sysimage/rpm/rpmdb.sqlite", "rpm"),
        ("opt/venv/lib/python3.11/site-packages/flask-3.0.dist-info/METADATA", "Python"),
        ("usr/lib/python3/dist-packages/six-1.egg-info", "Python"),
        ("usr/lib/python3/dist-packages/six-1.egg-info/PKG-INFO", "Python"),
        ("usr/lib/python3/dist-packages/six-1.egg-info/top_level.txt", ""),
        ("home/METADATA", ""),
        ("app/node_modules/a/package.json", "npm"),
        ("app/node_modules/a/node_modules/@b/c/package.json", "npm"),
        ("app/node_modules/a/test/package.json", ""),
        ("app/package.json", ""),
    ],
)
def test_databases_are_known_by_their_paths(path: str, name: str) -> None:
    database = database_of(path)

    assert (database.name if database else "") == name


@pytest.mark.parametrize(
    ("package", "purl"),
    [
        (LIBC, "pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12&upstream=glibc"),
        (Package("deb", "x", "1:2~b"), "pkg:deb/debian/x@1:2~b?distro=debian-12"),
        (Package("pypi", "Flask_Login", "3.0"), "pkg:pypi/flask-login@3.0"),
        (Package("npm", "@Scope/b", "1.0.0"), "pkg:npm/%40scope/b@1.0.0"),
        (Package("rpm", "a", "1-2", "x86_64", epoch="4"), "pkg:rpm/debian/a@1-2?arch=x86_64&distro=debian-12&epoch=4"),
    ],
)
def test_package_urls(package: Package, purl: str) -> None:
    assert package.purl(DEBIAN) == purl


def test_os_release_names_the_distribution() -> None:
    assert Distribution.parse(b'NAME="A b"\nID=debian\nVERSION_ID="12"\n') == DEBIAN
    assert Distribution.parse(b"") == Distribution()


# --- images

Scan = Callable[..., Contents]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "root"))


def layer(store: Store, files: Mapping[str, str | None]) -> Layer:
    """A layer with these files; None is one that is taken away."""
    changes = [
        Change(Entry(path, Kind.FILE, size=len(text)), text.encode()) if text is not None else whiteout(path)
        for path, text in files.items()
    ]
    made, index = write_layer(changes, store.layout)
    store.keep_index(made.diff_id, index)
    return made


def scan(store: Store, *layers: Layer) -> Contents:
    return contents_of(layers, store, lambda *_: None)


def found(contents: Contents) -> dict[str, int]:
    """The layer of each package, by name."""
    return {each.package.name: each.layer for each in contents.packages}


def deb(*packages: str) -> str:
    return "\n".join(f"Package: {name}\nStatus: install ok installed\nVersion: 1\n" for name in packages)


def python(name: str, version: str = "1") -> str:
    return f"Name: {name}\nVersion: {version}\n"


def test_a_package_comes_from_the_layer_that_first_lists_it(store: Store) -> None:
    base = layer(store, {"var/lib/dpkg/status": deb("a", "b"), "etc/os-release": "ID=debian\nVERSION_ID=12\n"})
    more = layer(store, {"var/lib/dpkg/status": deb("a", "b", "c")})
    less = layer(store, {"var/lib/dpkg/status": deb("a", "c")})

    contents = scan(store, base, more, less)

    assert found(contents) == {"a": 0, "c": 1}
    assert contents.distribution == DEBIAN


def test_a_package_that_comes_again_is_of_the_layer_that_brought_it_back(store: Store) -> None:
    layers = [layer(store, {"var/lib/dpkg/status": deb(*names)}) for names in ("a", "", "ab")]

    assert found(scan(store, *layers)) == {"a": 2, "b": 2}


def test_what_is_taken_away_is_not_listed(store: Store) -> None:
    one, two = (f"x/{name}.dist-info/METADATA" for name in "ab")
    base = layer(
        store, {one: python("a"), two: python("b"), "node_modules/c/package.json": '{"name":"c","version":"1"}'}
    )
    gone = layer(store, {"x/a.dist-info": None, "node_modules/c/package.json": "{}"})

    assert found(scan(store, base, gone)) == {"b": 0}


def test_a_package_that_is_upgraded_is_of_the_upper_layer(store: Store) -> None:
    path = "x/a.dist-info/METADATA"
    layers = [layer(store, {path: python("a", version)}) for version in ("1", "2", "2")]

    contents = scan(store, *layers)

    assert [(each.package.version, each.layer) for each in contents.packages] == [("2", 1)]


def test_hard_links_are_files(store: Store) -> None:
    """Of the same layer, and of a layer below as some tools write them."""
    text = python("a")
    paths = [f"{folder}/a.dist-info/METADATA" for folder in ("x", "y", "z")]
    entry = Entry(paths[0], Kind.FILE, size=len(text), inode=1)
    base, index = write_layer(
        [Change(entry, text.encode()), Change(entry._replace(path=paths[1]), text.encode())], store.layout
    )
    store.keep_index(base.diff_id, index)
    link, index = write_layer([Change(Entry(paths[2], Kind.HARDLINK, target=paths[0]))], store.layout)
    store.keep_index(link.diff_id, index)

    contents = scan(store, base, link)

    assert [(each.path, each.layer) for each in contents.packages] == [(paths[0], 0), (paths[1], 0), (paths[2], 1)]


def test_a_database_that_cannot_be_read_is_named(store: Store) -> None:
    contents = scan(store, layer(store, {"var/lib/rpm/Packages": "x", "node_modules/a/package.json": "{"}))

    assert [note.partition(":")[0] for note in contents.notes] == [
        "/node_modules/a/package.json is not in the SBOM",
        "/var/lib/rpm/Packages is not in the SBOM",
    ]


def test_a_layer_is_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    base = layer(store, {"var/lib/dpkg/status": deb("a"), "node_modules/a/package.json": "{"})
    first = scan(store, base)
    Path(store.layout.path(base.descriptor.digest)).unlink()

    assert scan(store, base) == first


# --- SPDX


def described(contents: Contents, layers: int) -> Described:
    return Described(
        name="docker.io/library/app:latest",
        created="2023-11-14T22:13:20.5Z",
        diff_ids=tuple(Digest.of(b"%d" % number) for number in range(layers)),
        origins=("", "Dockerfile:3 COPY --from=build /venv /venv")[:layers],
        made=tuple("Dockerfile:2 RUN pip install" if each.layer else "" for each in contents.packages),
    )


def test_spdx_tells_of_each_package_what_brought_it(store: Store) -> None:
    base = layer(store, {"var/lib/dpkg/status": deb("a"), "etc/os-release": "ID=debian\n"})
    venv = layer(store, {"venv/b.dist-info/METADATA": python("b")})
    contents = scan(store, base, venv)

    document = spdx_document(contents, described(contents, 2))

    packages = {package["name"]: package for package in document["packages"]}
    relations = {
        (each["spdxElementId"], each["relatedSpdxElement"])
        for each in document["relationships"]
        if each["relationshipType"] == "CONTAINS"
    }
    one, two = Digest.of(b"0"), Digest.of(b"1")
    assert packages["b"]["comment"] == (
        f"layer {two}; Dockerfile:3 COPY --from=build /venv /venv; made by Dockerfile:2 RUN pip install"
    )
    assert packages["a"]["comment"] == f"layer {one}"
    assert packages["b"]["externalRefs"][0]["referenceLocator"] == "pkg:pypi/b@1"
    assert (packages[two]["SPDXID"], packages["b"]["SPDXID"]) in relations
    assert (packages[one]["SPDXID"], packages["a"]["SPDXID"]) in relations
    assert document["creationInfo"]["created"] == "2023-11-14T22:13:20Z"


def test_the_same_packages_give_the_same_document_and_others_another_name_space(store: Store) -> None:
    contents = scan(store, layer(store, {"var/lib/dpkg/status": deb("a")}))
    others = scan(store, layer(store, {"var/lib/dpkg/status": deb("b")}))

    one, again, other = (spdx_document(each, described(each, 1)) for each in (contents, contents, others))

    assert json.dumps(one) == json.dumps(again)
    assert one["documentNamespace"] != other["documentNamespace"]
    assert one["documentNamespace"].startswith("urn:uuid:")
