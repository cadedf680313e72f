"""Users and groups as an image knows them: from its own /etc/passwd and /etc/group, never from this machine's."""

import os
from collections.abc import Iterator
from typing import NamedTuple, Self

from layers.data import dataclass
from layers.entry import Kind
from layers.errors import ImageError
from layers.view import View

_LARGEST_ID = 2**31 - 1
"""What runtimes take: libcontainer refuses more."""


@dataclass(frozen=True, slots=True)
class User:
    """Who a process of the image runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """The supplementary groups: the primary one, then the others in the order of /etc/group."""
    home: str = "/"


class Owner(NamedTuple):
    """Who files of the image shall belong to."""

    uid: int
    gid: int
    unknown: tuple[str, ...] = ()
    """Names that the image does not have: something to warn of, since 0 stands in for them."""


class _Account(NamedTuple):
    """One line of /etc/passwd (passwd(5))."""

    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    """One line of /etc/group (group(5))."""

    name: str
    gid: int
    members: tuple[str, ...]


class Accounts:
    """The accounts of one image. Of several lines that fit the first counts; lines that are malformed do not."""

    def __init__(self, passwd: bytes | ImageError, group: bytes | ImageError) -> None:
        """An error is why there is no reading a file: it is raised where somebody asks for what stands in it."""
        self._passwd_error = passwd if isinstance(passwd, ImageError) else None
        self._group_error = group if isinstance(group, ImageError) else None
        self._accounts = () if isinstance(passwd, ImageError) else tuple(_accounts(passwd))
        self._groups = () if isinstance(group, ImageError) else tuple(_groups(group))

    @classmethod
    def from_view(cls, view: View) -> Self:
        """Those of an image; a missing file is an empty one, and a folder is none that can be read."""
        return cls(_read(view, "etc/passwd"), _read(view, "etc/group"))

    def user(self, text: str) -> User:
        """Who `USER text` means: `name|uid[:group|gid]`, by the rules of Docker and runc.

        Nothing before the colon is uid 0. A number needs no line in passwd: its group is then 0, its home `/`.
        A group that is named replaces all others. Two numbers, or `root`, need no files, and neither does nothing.
        ImageError for a name that the image does not have.
        """
        name, _, group_name = text.partition(":")
        uid, gid = (_id_or_root(name), _id_or_root(group_name)) if group_name else (None, None)
        if uid is not None and gid is not None:
            account = self._account(uid)
            return User(uid, gid, (gid,), account.home if account else "/")
        error = self._passwd_error or self._group_error
        if error:
            if not text:
                return User(0, 0, (0,))
            raise error
        uid = _number(name or "0")
        account = self._account(uid if uid is not None else name)
        if account is None and uid is None:
            raise ImageError(
                f"unable to find user {name}: no matching entries in passwd file",
                hint="create the user in an earlier RUN, or use its number",
            )
        found = account or _Account("", _in_range(uid or 0), 0, "/")
        if group_name:
            gid = self._gid(group_name)
            return User(found.uid, gid, (gid,), found.home)
        # The primary group is among the others too, so that a process cannot lose what is denied to a group by dropping
        # it (CVE-2022-36109); runtimes do the same.
        others = (group.gid for group in self._groups if found.name and found.name in group.members)
        return User(found.uid, found.gid, tuple(dict.fromkeys((found.gid, *others))), found.home)

    def owner(self, text: str) -> Owner:
        """Who `--chown=text` means, as BuildKit takes it: `name|uid[:group|gid]`.

        A number alone is user and group; a name alone brings the group of its line in passwd. A user that the image
        does not have counts as 0, a group as if it were left out, and so does an empty group (BuildKit made 0 of it
        until its pull request 7179). `root` is 0 even without any passwd.
        """
        name, _, group_name = text.partition(":")
        uid, gid, unknown = self._file_owner(name)
        if not group_name:
            return Owner(uid, gid, unknown)
        number = _id_or_root(group_name)
        if number is None:
            if self._group_error:
                raise self._group_error
            known = next((group for group in self._groups if group.name == group_name), None)
            return Owner(uid, known.gid, unknown) if known else Owner(uid, gid, (*unknown, group_name))
        return Owner(uid, number, unknown)

    def _file_owner(self, name: str) -> Owner:
        number = _id_or_root(name or "0")
        if number is not None:
            return Owner(number, number)
        if self._passwd_error:
            raise self._passwd_error
        account = self._account(name)
        return Owner(account.uid, account.gid) if account else Owner(0, 0, (name,))

    def _account(self, wanted: str | int) -> _Account | None:
        return next((account for account in self._accounts if wanted in {account.name, account.uid}), None)

    def _gid(self, wanted: str) -> int:
        number = _number(wanted)
        if number is not None:
            return _in_range(number)
        for group in self._groups:
            if group.name == wanted:
                return group.gid
        raise ImageError(
            f"unable to find group {wanted}: no matching entries in group file",
            hint="create the group in an earlier RUN, or use its number",
        )


def _read(view: View, path: str) -> bytes | ImageError:
    try:
        entry = view.lookup(view.resolve(path))
    except ImageError as error:  # links in a circle
        return error
    if entry is not None and entry.kind is Kind.DIRECTORY:
        return ImageError(f"/{path} is a folder", hint="numbers, as in 1000:1000, need no such file")
    return view.read(path) or b""


def _accounts(data: bytes) -> Iterator[_Account]:
    for line in _lines(data):
        uid, gid = _field(line, 2), _field(line, 3)
        if line[0] and uid is not None and gid is not None:
            yield _Account(line[0], uid, gid, line[5] if len(line) > 5 and line[5] else "/")


def _groups(data: bytes) -> Iterator[_Group]:
    for line in _lines(data):
        gid = _field(line, 2)
        if line[0] and gid is not None:
            members = line[3].split(",") if len(line) > 3 else []
            yield _Group(line[0], gid, tuple(member for member in members if member))


def _lines(data: bytes) -> Iterator[list[str]]:
    """The fields of each line; names are bytes to the kernel, so they are decoded as file names are."""
    for line in data.split(b"\n"):
        if line.strip():
            yield os.fsdecode(line.strip()).split(":")


def _field(line: list[str], position: int) -> int | None:
    """The number in a field; None if there is none, or one that no runtime takes."""
    number = _number(line[position]) if len(line) > position else None
    return number if number is not None and number <= _LARGEST_ID else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def _id_or_root(text: str) -> int | None:
    """A number, or the one name that needs no passwd."""
    number = 0 if text == "root" else _number(text)
    return None if number is None else _in_range(number)


def _in_range(number: int) -> int:
    if number > _LARGEST_ID:
        raise ImageError(f"{number} is no id of a user or group", hint=f"ids are in the range 0-{_LARGEST_ID}")
    return number
