"""What COPY and ADD mean: which files from where, to where, and with what attributes."""

import posixpath

from builder.dockerfile import instructions as d
from builder.errors import DockerfileError
from builder.stage_state import Scope, StageState
from builder.steps.step import Copy


def copy_action(copy: d.Copy, state: StageState, scope: Scope) -> tuple[str, Copy]:
    """The action of a COPY or ADD in its stage, and how the history words it."""
    keyword = "ADD" if isinstance(copy, d.Add) else "COPY"
    sources = tuple(state.word(source) for source in copy.sources)
    _refuse_unsupported(keyword, copy, sources)
    destination = state.word(copy.destination)
    chown, chmod = state.word(copy.chown), state.word(copy.chmod)
    action = Copy(
        origin=scope.origin(copy.from_),
        sources=sources,
        destination=_joined(state.directory, destination),
        chown=chown,
        mode=_octal(chmod) if chmod else None,
        unpack=copy.unpack,
    )
    flags = [f"--{name}={value}" for name, value in (("chown", chown), ("chmod", chmod)) if value]
    return " ".join([keyword, *flags, *sources, destination]), action


def _refuse_unsupported(keyword: str, copy: d.Copy, sources: tuple[str, ...]) -> None:
    """Nothing is accepted and then ignored."""
    given: dict[str, object] = {
        "a here-document": copy.documents,
        "--link": copy.link,
        "--parents": copy.parents,
        "--exclude": copy.excludes,
    }
    if isinstance(copy, d.Add):
        given["--checksum"] = copy.checksum
        given["--keep-git-dir"] = copy.keep_git_dir
        given["--unpack=true"] = copy.unpack_remote
        given["a URL or git repository"] = any(map(_is_remote, sources))
    for what, value in given.items():
        if value:
            raise DockerfileError(f"{keyword} with {what} is not supported yet")


def _joined(directory: str, path: str) -> str:
    """A destination as an absolute path; a trailing slash, or `.`, says that it is a directory."""
    joined = posixpath.join(directory, path)
    is_directory = path.endswith(("/", "/.")) or path in {"", "."}
    return posixpath.normpath("/" + joined.lstrip("/")).rstrip("/") + ("/" if is_directory else "") or "/"


def _octal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or set(text) & {"8", "9"} or int(text, 8) > 0o7777:
        raise DockerfileError(
            f"invalid chmod parameter: {text!r}", hint="an octal number from 0 to 7777 is supported as yet"
        )
    return int(text, 8)


def _is_remote(source: str) -> bool:
    return source.startswith(("http://", "https://", "git://", "ssh://", "git@"))
