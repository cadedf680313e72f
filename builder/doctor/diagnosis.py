"""From facts and answers to a judgement: whether RUN works here, how, what is lacking, and what would help. Pure."""

from collections.abc import Iterator

from builder.doctor.machine import Machine
from builder.doctor.trials import Answer, Trials
from builder.sandbox.idmap import Way
from builder.sandbox.refusal import SETTINGS, name_of
from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that RUN can have here, or cannot."""

    name: str
    fine: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that is known."""

    machine: Machine
    store: str
    findings: tuple[Finding, ...]
    backend: str
    """The one that a build would take; empty if none works."""
    reason: str
    advice: tuple[str, ...]
    """What would make it better; each is one thing that somebody can do."""

    @property
    def works(self) -> bool:
        """Whether a RUN is possible."""
        return bool(self.backend)


def diagnose(machine: Machine, store: str, trials: Trials) -> Diagnosis:
    """Judge."""
    backend, reason = _backend(trials)
    return Diagnosis(
        machine, store, tuple(_findings(machine, trials)), backend, reason, tuple(_advice(machine, trials))
    )


def _backend(trials: Trials) -> tuple[str, str]:
    """What a build gets, and what that means; nothing if its commands could not start in it."""
    choice = trials.choice
    if choice.backend != "overlay":
        return choice.backend, choice.words
    processes = trials.inside["processes"]
    if not processes:
        return "", f"namespaces can be had, but none for processes: {name_of(processes.number)}"
    return choice.backend, choice.words or f"namespaces and overlays work, with ids as {trials.way}"


def _findings(machine: Machine, trials: Trials) -> Iterator[Finding]:
    ids = {
        Way.ROOT: "all ids: we are root",
        Way.CONTAINER_ROOT: "all ids of this container",
        Way.SUBORDINATE: "the ids of /etc/subuid and /etc/subgid",
        Way.SINGLE: f"one id alone: {trials.lacks}",
    }[trials.way]
    yield _finding("namespaces", trials.namespaces)
    # Those of /etc/subuid can be had in a user namespace only.
    has_ids = trials.namespaces if trials.way is Way.SUBORDINATE else trials.way is not Way.SINGLE
    yield Finding("several ids", bool(has_ids), ids)
    if trials.namespaces:
        yield _finding("own processes", trials.inside["processes"])
        yield _finding("own /proc", trials.inside["proc"], otherwise="the one of this place is shown")
        yield _finding("overlay", trials.inside["overlay"], on=machine.file_system)
        yield _finding("no network", trials.inside["network"], otherwise="RUN --network=none is refused")
    yield _finding("chroot", trials.outside["chroot"])
    yield _finding("owners on disk", trials.outside["owners"])
    yield _finding("seccomp filter", trials.outside["filter"], otherwise="RUN may make any system call")
    yield _finding("seccomp notify", trials.outside["notify"])
    yield Finding("limits", all(trials.limits.values()), _limits(trials))
    yield _finding("reflink", trials.outside["reflink"], on=machine.file_system)
    handlers = ", ".join(machine.handlers)
    yield Finding("other processors", bool(handlers), handlers or "no handler in /proc/sys/fs/binfmt_misc")


def _limits(trials: Trials) -> str:
    kept = ", ".join(name for name, answer in trials.limits.items() if answer)
    refused = ", ".join(name for name, answer in trials.limits.items() if not answer)
    return "; ".join([f"of {kept}"] * bool(kept) + [f"none of {refused}"] * bool(refused))


def _finding(name: str, answer: Answer, *, on: str = "", otherwise: str = "") -> Finding:
    parts = [f"on {on}"] if on else []
    if not answer:
        parts += [name_of(answer.number), otherwise]
    return Finding(name, bool(answer), "; ".join(part for part in parts if part))


def _advice(machine: Machine, trials: Trials) -> Iterator[str]:
    if not trials.namespaces:
        yield from _toward_namespaces(machine, trials)
    elif trials.way is Way.SINGLE:
        pretended = bool(trials.outside["notify"])
        gain = (
            "other users that are real, and faster" if pretended else "chown, USER and programs that change their user"
        )
        yield (
            f"for {gain}: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME, and the package uidmap"
        )
    if trials.namespaces and not trials.inside["overlay"]:
        yield (
            f"put the store on a file system that carries overlays, such as ext4, xfs or a volume (this is"
            f" {machine.file_system}): --root DIR, or PYBUILD_ROOT"
        )
    if trials.namespaces and not trials.inside["proc"]:
        yield "for its own /proc: docker run --security-opt systempaths=unconfined; Kubernetes: procMount: Unmasked"
    refused = [answer.words for answer in trials.limits.values() if not answer]
    yield from (f"for limits of RUN: {words}" for words in dict.fromkeys(refused))
    if not machine.handlers:
        yield "for other processors: handlers in binfmt_misc, such as the package qemu-user-static brings to Debian"


def _toward_namespaces(machine: Machine, trials: Trials) -> Iterator[str]:
    for setting in SETTINGS:
        if setting.in_force():
            yield f"allow user namespaces: sysctl -w {setting.name}={setting.better}"
    if machine.container:
        yield "run this container with --security-opt seccomp=unconfined, and a volume for the store"
        yield "Kubernetes: hostUsers: false in the pod, or seccompProfile: Unconfined"
    elif trials.namespaces.words:
        yield trials.namespaces.words
