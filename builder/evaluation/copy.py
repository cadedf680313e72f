"""What COPY and ADD mean: which files from where, to where, and with what attributes."""

import os
import posixpath

from builder.dockerfile import instructions as d
from builder.dockerfile.words import expand_body
from builder.errors import DockerfileError
from builder.evaluation.stage_state import Scope, StageState
from builder.steps.mode import Mode, parse_mode
from builder.steps.remote import Remote
from builder.steps.step import Copy, InlineFile


def copy_action(copy: d.Copy, state: StageState, scope: Scope) -> tuple[str, Copy]:
    """The action of a COPY or ADD in its stage, and how the history words it."""
    keyword = "ADD" if isinstance(copy, d.Add) else "COPY"
    sources = tuple(state.word(source) for source in copy.sources)
    destination = state.word(copy.destination)
    target = _joined(state.directory, destination)
    chown, chmod = state.word(copy.chown), state.word(copy.chmod)
    if copy.link:
        _check_numeric(chown)
    action = Copy(
        origin=scope.origin(copy.from_),
        sources=sources,
        destination=target,
        inline=tuple(_inline_file(document, state) for document in copy.documents),
        chown=chown,
        mode=_mode(chmod),
        unpack=copy.unpack,
        link=copy.link,
        parents=copy.parents,
        excludes=copy.excludes,
        remotes=_remotes(copy, sources, target, state),
    )
    flags = [f"--{name}={value}" for name, value in (("chown", chown), ("chmod", chmod)) if value]
    if copy.parents:
        flags.insert(0, "--parents")
    documents = [f"<<{document.name}" for document in copy.documents]
    return " ".join([keyword, *flags, *sources, *documents, destination]), action


def _remotes(copy: d.Copy, sources: tuple[str, ...], destination: str, state: StageState) -> tuple[Remote, ...]:
    """The sources of ADD that are elsewhere; COPY has none."""
    checksum = state.word(copy.checksum) if isinstance(copy, d.Add) else ""
    if not checksum and not any(map(_may_be_remote, sources)):
        return ()
    # Not at the top: most copies are of local files, and reading URLs costs more to import than all that they need.
    from builder.evaluation.add import is_remote, remotes_of

    if isinstance(copy, d.Add):
        return remotes_of(copy, sources, destination, checksum)
    for source in sources:
        if not copy.from_ and is_remote(source):
            hint = "ADD fetches URLs and repositories"
            raise DockerfileError(f"{source} cannot be a source of COPY", hint=hint, span=source)
    return ()


def _inline_file(document: d.Document, state: StageState) -> InlineFile:
    """A here-document with its variables replaced, unless its name was quoted."""
    if "/" in document.name:
        message = f"the here-document {document.name!r} would be a file with a slash in its name"
        raise DockerfileError(message, span=document.name)
    text = document.text
    if document.expand:
        text = expand_body(text, state.look_up, state.escape)
    return InlineFile(document.name, os.fsencode(text))


def _check_numeric(chown: str) -> None:
    """The layer of --link stands on an empty root, where no user has a name but root."""
    for name in chown.split(":", 1):
        if name and name != "root" and not (name.isascii() and name.isdigit()):
            raise DockerfileError(
                f"--chown={chown} with --link: an empty root has no {name!r}",
                hint="give user and group as numbers",
                span=f"--chown={chown}",
            )


def _mode(chmod: str) -> Mode | None:
    try:
        return parse_mode(chmod) if chmod else None
    except ValueError as error:
        hint = "write a number such as 0644, or changes such as u=rwX,go=rX"
        raise DockerfileError(str(error), hint=hint, span=f"--chmod={chmod}") from error


def _joined(directory: str, path: str) -> str:
    """A destination as an absolute path; a trailing slash, or `.`, says that it is a directory."""
    joined = posixpath.join(directory, path)
    is_directory = path.endswith(("/", "/.")) or path in {"", "."}
    return posixpath.normpath("/" + joined.lstrip("/")).rstrip("/") + ("/" if is_directory else "") or "/"


def _may_be_remote(source: str) -> bool:
    return "://" in source or "@" in source
