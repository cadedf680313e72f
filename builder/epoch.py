"""SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/): one moment, and no time after it.

With an epoch an image is a function of what it is built from. What is new is given the epoch as its time, or keeps an
earlier one if it brought that along, as the files of an archive or of a context may do: times are clamped, as the
specification has it, not set. A fresh clone is younger than its last commit, so its times never show.
"""

import os
import re
from collections.abc import Callable, Iterator

from builder.arguments import SOURCE_DATE_EPOCH as ARGUMENT
from builder.context.named import Folder, context_source
from builder.errors import ContextError, UsageError
from builder.options import BuildOptions
from builder.steps.tree import Tree, walk
from layers.data import replace
from layers.entry import SECOND, WHITEOUT_PREFIX, Change, Kind

_LATEST = 253_402_300_799
"""The last second of the year 9999: RFC 3339 has no later one."""


def with_epoch(options: BuildOptions, open_context: Callable[[], Tree]) -> tuple[BuildOptions, int | None]:
    """The epoch in seconds since 1970, by option, build argument or environment; and the options with it.

    UsageError for a text that is none; ContextError if the context cannot tell one.
    """
    given = options.build_args.get(ARGUMENT, "") or options.environment.get(ARGUMENT, "")
    text = options.source_date_epoch or given
    if not text:
        return options, None
    if text == "git":
        epoch = _of_commit(options, open_context)
    elif text == "context":
        epoch = _of_files(open_context())
    else:
        epoch = _number(text)
    return replace(options, build_args={**options.build_args, ARGUMENT: str(epoch)}), epoch


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _LATEST):
        raise UsageError(
            f"{ARGUMENT} is {text!r}, and should be seconds since 1970", hint="--source-date-epoch N|git|context"
        )
    return int(text)


def _of_files(tree: Tree) -> int:
    """The time of the newest file; folders do not count, whose times change with files that are ignored."""
    root = tree.lookup("")
    files = (entry for entry in walk(tree, root) if entry.kind is not Kind.DIRECTORY) if root else iter(())
    return min(max((max(0, entry.mtime_ns) // SECOND for entry in files), default=0), _LATEST)


def _of_commit(options: BuildOptions, open_context: Callable[[], Tree]) -> int:
    """When the commit was made that is checked out in the context."""
    source = context_source(options.context) if options.context != "-" else None
    if not isinstance(source, Folder):
        return _of_files(open_context())  # a repository that was fetched: its files have the time of their commit
    # Plumbing, since what people configure for `git log` may run programs, and a context may come from anybody.
    import subprocess  # few builds ask for it

    command = ["git", "-c", "core.fsmonitor=false", "-C", source.path, "cat-file", "commit", "HEAD"]
    environment = {name: options.environment[name] for name in ("PATH", "HOME") if name in options.environment}
    try:
        done = subprocess.run(
            command, env=environment | {"LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise ContextError(
            f"git cannot be started: {error.strerror}", hint="--source-date-epoch=git needs it"
        ) from error
    head, _, _ = done.stdout.partition(b"\n\n")
    found = re.search(rb"^committer .* (\d+) [+-]\d+$", head, re.MULTILINE)
    if done.returncode or found is None:
        said = os.fsdecode(done.stderr).strip().removeprefix("fatal: ").partition("\n")[0] or "there is no commit"
        raise ContextError(f"git tells no time of the context: {said}", hint="--source-date-epoch N|context")
    return min(int(found[1]), _LATEST)


def clamped(changes: Iterator[Change], epoch: int) -> Iterator[Change]:
    """The changes, none of them later than the epoch."""
    latest = epoch * SECOND
    for change in changes:
        entry = change.entry
        yield change if entry.mtime_ns <= latest else Change(entry._replace(mtime_ns=latest), change.content)


def clamped_on_disk(changes: Iterator[Change], upper: str, epoch: int) -> Iterator[Change]:
    """The same for changes that were read from a folder, which is changed with them.

    The folder becomes the tree of the layer: steps that see it must see the times that the layer says, as they would if
    it had been unpacked. Folders get theirs at the end, since reading the changes changes folders.
    """
    folders: dict[str, int] = {}
    for change in clamped(changes, epoch):
        path, mtime_ns = change.entry.path, change.entry.mtime_ns
        if change.entry.kind is Kind.DIRECTORY:
            folders[path] = mtime_ns
        elif mtime_ns == epoch * SECOND and not path.rpartition("/")[2].startswith(WHITEOUT_PREFIX):
            os.utime(os.path.join(upper, path), ns=(mtime_ns, mtime_ns), follow_symlinks=False)
        yield change
    for path, mtime_ns in folders.items():
        os.utime(os.path.join(upper, path), ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def no_later(created: str, latest: str) -> str:
    """A time of RFC 3339, or `latest` if it is not known or later."""
    from datetime import datetime  # builds without an epoch compare no times

    try:
        return created if datetime.fromisoformat(created) <= datetime.fromisoformat(latest) else latest
    except (ValueError, TypeError):  # no time, or one without a zone
        return latest
