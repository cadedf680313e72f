"""What a text says of a git repository: `https://host/project.git#ref:folder`, or the same as a query.

The forms are BuildKit's (docs.docker.com, "Build context", "Git repositories"); nothing is asked of anybody here.
"""

import re
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit, urlunsplit

from builder.errors import ContextError
from layers.data import dataclass, replace

_SCHEME = re.compile(r"([A-Za-z0-9+.-]+)://")
_ALWAYS_GIT = frozenset({"git", "ssh"})
_WEB = frozenset({"http", "https"})
_SCP = re.compile(
    r"(?P<place>[A-Za-z0-9_][\w.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^?#]+)(?:\?(?P<query>[^#]*))?(?:#(?P<rest>.*))?"
)
"""`git@host:path`, which git means as ssh."""
_NO_REF = re.compile(r"^[-/]|[\0-\x20\x7f~^:?*\[\\]|\.\.|@\{|/$|\.lock$")
"""What no ref may have (git-check-ref-format(1)); a leading `-` would be an option of git."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PART_OF_COMMIT = re.compile(r"[0-9a-f]{1,64}")
_YES = frozenset({"", "1", "t", "true"})
_NO = frozenset({"0", "f", "false"})


@dataclass(frozen=True, slots=True)
class Repository:
    """A folder in a state of a repository."""

    url: str
    """What git is given; it may hold a password."""
    ref: str = ""
    """A branch, a tag, a full ref such as refs/pull/1/head, or a whole commit hash; "" is what the server's HEAD is."""
    subdir: str = ""
    checksum: str = ""
    """The beginning of the commit's hash; "" accepts any."""
    keep_git_dir: bool | None = None
    """None: not said."""
    submodules: bool = True

    def __str__(self) -> str:
        """As errors and progress name it: without a password."""
        named = f"{without_password(self.url)}#{self.ref}:{self.subdir}"
        return named.removesuffix(":").removesuffix("#")

    @property
    def is_pinned(self) -> bool:
        """Whether the ref is a commit itself, so that nobody needs to be asked what it is."""
        return _COMMIT.fullmatch(self.ref) is not None


def parse_repository(text: str) -> Repository | None:
    """The repository that a text names, None if it is none; ContextError for one with a ref or query that is wrong.

    `git://`, `ssh://` and `user@host:path` are always repositories, http and https URLs if their path ends in `.git`.
    """
    try:
        found = _from_scp(text) or _from_url(text)
    except _WrongError as error:
        raise ContextError(f"{without_password(text)}: {error}", hint="write URL.git#REF:FOLDER") from error
    return found


def scheme_of(text: str) -> str:
    """What stands before `://`, in lower case; "" if nothing does."""
    matched = _SCHEME.match(text)
    return matched[1].lower() if matched else ""


def without_password(url: str) -> str:
    """A URL that can be shown; user and password are left out of it."""
    return re.sub(r"^([A-Za-z0-9+.-]+://)[^/?#]*@", r"\1", url)


class _WrongError(ValueError):
    """Says what is wrong with a repository's text."""


def _from_scp(text: str) -> Repository | None:
    matched = _SCP.fullmatch(text)
    if matched is None or "://" in text:
        return None
    return _with_choices(Repository(matched["place"]), matched["query"] or "", matched["rest"] or "")


def _from_url(text: str) -> Repository | None:
    if scheme_of(text) not in _ALWAYS_GIT | _WEB:
        return None
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError as error:
        raise _WrongError("it is not a URL") from error
    if parts.scheme in _WEB and not parts.path.endswith(".git"):
        return None
    if not host or host.startswith("-") or parts.netloc.startswith("-"):
        raise _WrongError("it names no host")
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return _with_choices(Repository(url), parts.query, parts.fragment)


def _with_choices(repository: Repository, query: str, fragment: str) -> Repository:
    """The repository with what its fragment and its query say."""
    ref, _, subdir = fragment.partition(":")
    asked = _query(query)
    refs = [
        ref,
        asked.get("ref", ""),
        _prefixed("refs/tags/", asked.get("tag", "")),
        _prefixed("refs/heads/", asked.get("branch", "")),
    ]
    checksum = _one("checksum", [asked.get("checksum", ""), asked.get("commit", "")])
    chosen = replace(
        repository,
        ref=_one("ref", refs) or checksum,
        subdir=_one("subdir", [subdir, asked.get("subdir", "")]),
        checksum=checksum,
        keep_git_dir=_switch(asked, "keep-git-dir"),
        submodules=_switch(asked, "submodules") is not False,
    )
    if _NO_REF.search(chosen.ref):
        raise _WrongError(f"{chosen.ref!r} is no name of a branch, tag or commit")
    if "\0" in chosen.subdir:
        raise _WrongError("a folder's name has no NUL byte")
    if checksum and not _PART_OF_COMMIT.fullmatch(checksum):
        raise _WrongError(f"{checksum!r} is no commit hash, nor the beginning of one")
    return chosen


def _query(query: str) -> Mapping[str, str]:
    """The options of a query, each given once."""
    known = {"ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules"}
    options = {}
    for name, values in parse_qs(query, keep_blank_values=True).items():
        if name not in known:
            raise _WrongError(f"the query has an unknown {name!r}; there are {', '.join(sorted(known))}")
        if len(values) > 1:
            raise _WrongError(f"the query has {name!r} more than once")
        if not values[0] and name not in {"keep-git-dir", "submodules"}:
            raise _WrongError(f"the query has {name!r} without a value")
        options[name] = values[0]
    return options


def _prefixed(prefix: str, name: str) -> str:
    return prefix + name.removeprefix(prefix) if name else ""


def _one(what: str, values: list[str]) -> str:
    """The value that was given; the same one twice is no harm."""
    given = sorted(set(filter(None, values)))
    if len(given) > 1:
        raise _WrongError(f"it names more than one {what}: {' and '.join(given)}")
    return given[0] if given else ""


def _switch(options: Mapping[str, str], name: str) -> bool | None:
    if name not in options:
        return None
    value = options[name].lower()
    if value not in _YES | _NO:
        raise _WrongError(f"{name}={options[name]} is neither true nor false")
    return value in _YES
