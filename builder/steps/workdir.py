"""WORKDIR: the directory and those above it, made for the user whose they are to be."""

from collections.abc import Iterator

from builder.steps.step import MakeDirectory
from builder.steps.target import Target
from layers.accounts import Accounts
from layers.entry import Change, Entry, Kind


def directory_changes(action: MakeDirectory, target: Target, accounts: Accounts, now_ns: int) -> Iterator[Change]:
    """The directories that are missing; all of them belong to the current user, as in BuildKit."""
    user = accounts.user(action.user)
    template = Entry("", Kind.DIRECTORY, 0o755, user.uid, user.gid, mtime_ns=now_ns)
    return target.make_directories(action.path.strip("/"), template)
