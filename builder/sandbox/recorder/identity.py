"""Who a process is, as values: the ids that credentials(7) gives it, and what the set*id calls make of them."""

import errno
from typing import NamedTuple, Self

LEAVE = -1
"""As an id: do not change it."""


class Ids(NamedTuple):
    """The four user ids of a process, or its four group ids."""

    real: int
    effective: int
    saved: int
    files: int
    """That of setfsuid(2), which files get; it follows the effective one."""

    @classmethod
    def all(cls, each: int) -> Self:
        """Four times the same."""
        return cls(each, each, each, each)

    def set(self, new: int, *, privileged: bool) -> "Ids":
        """As setuid(2): all four, or for others than root the effective one; PermissionError if it is not theirs."""
        if privileged:
            return Ids.all(new)
        if new not in {self.real, self.saved}:
            raise refused()
        return self._replace(effective=new, files=new)

    def set_two(self, real: int, effective: int, *, privileged: bool) -> "Ids":
        """As setreuid(2)."""
        if not privileged and not (
            real in {LEAVE, self.real, self.effective} and effective in {LEAVE, self.real, self.effective, self.saved}
        ):
            raise refused()
        new = self.set_three(real, effective, LEAVE, privileged=True)
        changes_saved = real != LEAVE or effective not in {LEAVE, self.real}
        return new._replace(saved=new.effective) if changes_saved else new

    def set_three(self, real: int, effective: int, saved: int, *, privileged: bool) -> "Ids":
        """As setresuid(2)."""
        wanted = (real, effective, saved)
        if not privileged and not {LEAVE, *self[:3]}.issuperset(wanted):
            raise refused()
        real, effective, saved = (old if new == LEAVE else new for old, new in zip(self[:3], wanted, strict=True))
        return Ids(real, effective, saved, effective)

    def set_files(self, new: int, *, privileged: bool) -> "Ids":
        """As setfsuid(2), which does nothing rather than fail."""
        return self._replace(files=new) if privileged or new in self else self

    def after_exec(self, owner: int | None) -> "Ids":
        """As execve(2): `owner` is that of a program with the setuid bit, or None."""
        effective = self.effective if owner is None else owner
        return Ids(self.real, effective, effective, effective)


class Identity(NamedTuple):
    """All that a process is to others."""

    users: Ids
    groups: Ids
    more_groups: tuple[int, ...] = ()
    """Supplementary ones."""
    keeps_rights: bool = False
    """It has said that it wants to keep root's when it is not root any more (PR_SET_KEEPCAPS of prctl(2))."""

    @property
    def privileged(self) -> bool:
        """Whether it may take any id."""
        return self.users.effective == 0 or self.keeps_rights

    def in_group(self, group: int) -> bool:
        """Whether it may give files to this group."""
        return group == self.groups.files or group in self.more_groups


def refused() -> PermissionError:
    """What is answered to those who may not."""
    return PermissionError(errno.EPERM, "only root may")
