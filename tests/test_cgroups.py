"""Where cgroups of version 2 may be made, on a real tree of them: with any controller that version 1 leaves to it."""

import codecs
import errno
import os
import pwd
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import users
from grants import CGROUPS, demand
from processes import soon

from builder.errors import SandboxError
from builder.sandbox.cgroups.group import Group, sweep
from builder.sandbox.cgroups.places import Hierarchy, mounted, parents

pytestmark = pytest.mark.kernel

PLACE = "the scope"


class Tree:
    """The tree of version 2, with a cgroup in it for this test."""

    def __init__(self, tree: Hierarchy, controller: str) -> None:
        self.controller = controller
        self.scope = Path(tree.top, f"tests-of-pybuild-{os.getpid()}", "scope")

    def find(self, *, user: str = users.ROOT, alone: bool = True) -> str:
        """Where a process of the scope makes cgroups: `the scope`, another place, or the errno of the refusal."""
        reader, writer = os.pipe()
        holder = os.fork() if not alone else 0
        if not alone and holder == 0:
            self._join()
            signal.pause()
        assert alone or soon(lambda: bool((self.scope / "cgroup.procs").read_text("utf-8")))
        pid = os.fork()
        if pid == 0:
            self._find(user, writer)
        answer = os.read(reader, 1000).decode()
        os.waitpid(pid, 0)
        if holder:
            os.kill(holder, signal.SIGKILL)
            os.waitpid(holder, 0)
        os.close(reader)
        os.close(writer)
        return answer

    def _join(self) -> None:
        (self.scope / "cgroup.procs").write_text("0", "utf-8")

    def _find(self, user: str, writer: int) -> None:
        answer = "nothing"
        try:
            self._join()
            account = pwd.getpwnam(user)
            os.setgroups([])
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
            (folder,) = parents([self.controller], mounted())
            group = Group.make(folder)
            self._use(group)
            answer = PLACE if Path(folder) == self.scope else folder
        except SandboxError as error:
            answer = error.message.partition(": ")[2].partition(",")[0]
        finally:
            os.write(writer, answer.encode())
            os._exit(0)

    def _use(self, group: Group) -> None:
        """Let a process join it, as the first of a step does."""
        pid = os.fork()
        if pid == 0:
            group.join()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        group.remove()


@pytest.fixture
def tree() -> Iterator[Tree]:
    demand(CGROUPS)
    codecs.lookup("ascii")  # whose module the users may not be able to read
    found = [each for each in mounted() if each.unified]
    if not found:
        pytest.skip("no tree of cgroups of version 2 is mounted: ENOENT")
    (top,) = found
    controllers = Path(top.top, "cgroup.controllers").read_text("utf-8").split()
    if not controllers:
        pytest.skip("version 1 has all controllers of this machine: ENODEV")
    tree = Tree(top, controllers[0])
    before = Path(top.top, "cgroup.subtree_control").read_text("utf-8").split()
    try:
        tree.scope.mkdir(parents=True)
        for folder in (top.top, tree.scope.parent):
            Path(folder, "cgroup.subtree_control").write_text(f"+{controllers[0]}", "utf-8")
    except OSError as error:
        pytest.skip(f"mkdir({top.top}) by root: {errno.errorcode[error.errno or 0]}")
    yield tree
    for folder in (tree.scope, tree.scope.parent):
        sweep(str(folder))
        folder.rmdir()
    if controllers[0] not in before:
        with suppress(OSError):
            Path(top.top, "cgroup.subtree_control").write_text(f"-{controllers[0]}", "utf-8")


def delegate(tree: Tree) -> None:
    account = pwd.getpwnam(users.RANGES)
    for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
        os.chown(tree.scope / name, account.pw_uid, account.pw_gid)


def test_who_is_alone_in_a_cgroup_divides_it(tree: Tree) -> None:
    assert tree.find() == PLACE


def test_a_cgroup_that_was_divided_serves_the_next_build_too(tree: Tree) -> None:
    tree.find()
    sweep(str(tree.scope))

    (tree.scope / "cgroup.subtree_control").write_text(f"-{tree.controller}", "utf-8")

    assert tree.find() == PLACE


def test_root_goes_up_where_others_are_in_its_cgroup(tree: Tree) -> None:
    assert tree.find(alone=False) == str(tree.scope.parent)


def test_a_user_has_what_is_delegated(tree: Tree) -> None:
    delegate(tree)

    assert tree.find(user=users.RANGES) == PLACE


def test_a_user_is_told_what_is_in_the_way(tree: Tree) -> None:
    not_theirs = tree.find(user=users.RANGES)
    delegate(tree)

    assert (not_theirs, tree.find(user=users.RANGES, alone=False)) == ("EACCES", "EBUSY")
