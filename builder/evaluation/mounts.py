"""What RUN --mount means: from keys and values as written to mounts, and everything that can be wrong with them.

The keys, their defaults and the words of the errors are those of BuildKit's Dockerfile frontend
(frontend/dockerfile/instructions/commands_runmount.go).
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping

from builder.arguments import CACHE_NAMESPACE
from builder.dockerfile.instructions import MountText, Run
from builder.dockerfile.suggest import closest
from builder.dockerfile.texts import quoted
from builder.dockerfile.values import size
from builder.errors import DockerfileError
from builder.evaluation.stage_state import Scope, StageState
from builder.steps.step import BindMount, CacheMount, Origin, RunMount, SecretMount, SshMount, TmpfsMount
from cache.mount_sharing import Sharing

_NAMES = {
    "type": "type",
    "from": "from",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "readwrite": "readwrite",
    "rw": "readwrite",
    "id": "id",
    "sharing": "sharing",
    "required": "required",
    "size": "size",
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
    "env": "env",
}
"""Each key with the name that it goes by here."""

_IDLE = {
    "bind": {"id", "env"},
    "cache": {"env"},
    "tmpfs": {"from", "source", "id", "env"},
    "secret": set[str](),
    "ssh": {"from", "env"},
}
"""The types, each with the keys that BuildKit takes and does not look at. Others that do not fit are errors."""

SCRATCH = "scratch"

_ALONE = ("readonly", "readwrite", "required")
"""Names that need no value."""

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def run_mounts(run: Run, state: StageState, scope: Scope) -> tuple[RunMount, ...]:
    """The mounts of a RUN, in the order in which they are written; DockerfileError marks the words that are wrong."""
    mounts: list[RunMount] = []
    for text in run.mounts:
        mount = _Mount(text, state, scope, agents=sum(isinstance(mount, SshMount) for mount in mounts))
        for key in mount.idle():
            scope.warn(f"{key} means nothing in --mount={text.text}", run.location)
        mounts.append(mount.read())
    return tuple(mounts)


class _Mount:
    """One --mount, while it is read."""

    def __init__(self, text: MountText, state: StageState, scope: Scope, agents: int) -> None:
        """`agents` is how many SSH mounts stand before this one."""
        self._text = text
        self._state = state
        self._scope = scope
        self._agents = agents
        self._values = dict(self._expanded())
        self._type = self._choice("type", "unsupported mount type", _IDLE) or "bind"
        self._refuse_misplaced()

    def idle(self) -> list[str]:
        """The keys, as written, that this type has no use for."""
        names = _IDLE[self._type]
        keys = [key for key, _ in self._text.fields if _NAMES[key] in names]
        if self._type in {"secret", "ssh"} and self._values.get("readonly") == "false":
            keys.append("rw")
        return keys

    def read(self) -> RunMount:
        """The mount."""
        make: Mapping[str, Callable[[], RunMount]] = {
            "bind": self._bind,
            "cache": self._cache,
            "tmpfs": self._tmpfs,
            "secret": self._secret,
            "ssh": self._ssh,
        }
        return make[self._type]()

    def _expanded(self) -> Iterator[tuple[str, str]]:
        """Names with values, in which variables are replaced; `from` never has any."""
        for key, value in self._text.fields:
            field = key if value is None else f"{key}={value}"
            name = _NAMES.get(key)
            if name is None and value is not None:
                raise self._error(f"unexpected key '{key}' in '{field}'", key, hint=_did_you_mean(key, _NAMES))
            if name is None or (value is None and name not in _ALONE):
                raise self._error(
                    f"invalid field '{field}' must be a key=value pair", key, hint=_did_you_mean(key, _NAMES)
                )
            if name == "readwrite":
                # The later one of the two counts.
                yield "readonly", "false" if value is None or self._truth(key, self._state.word(value)) else "true"
            elif value is None:
                yield name, "true"
            else:
                yield name, value if name == "from" else self._state.word(value)

    def _refuse_misplaced(self) -> None:
        """Refuse the keys that only other types have."""
        kind = self._type
        if "required" in self._values and kind not in {"secret", "ssh"}:
            raise self._error(f"unexpected key 'required' for mount type '{kind}'", "required")
        if "size" in self._values and kind != "tmpfs":
            raise self._error(f"unexpected key 'size' for mount type '{kind}'", "size")
        if "sharing" in self._values and kind != "cache":
            raise self._error(f"invalid cache sharing set for {kind} mount", "sharing")
        for name in ("mode", "uid", "gid"):
            if name in self._values and kind not in {"cache", "secret", "ssh"}:
                raise self._error(f'{name} not allowed for "{kind}" type mounts', name)

    def _bind(self) -> BindMount | TmpfsMount:
        read_only = self._is_read_only(default=True)
        if self._values.get("from") == SCRATCH and not self._source():
            return TmpfsMount(self._target(), read_only=read_only)  # nothing at all is in it
        return BindMount(self._target(), self._origin(), self._source(), writable=not read_only)

    def _cache(self) -> CacheMount:
        seed = None
        if self._values.get("from") not in {None, "", SCRATCH}:
            seed = BindMount(self._target(), self._origin(), self._source())
        identity = self._values.get("id") or posixpath.normpath(self._values.get("target") or ".")
        namespace = self._scope.build_args.get(CACHE_NAMESPACE, "")
        return CacheMount(
            target=self._target(),
            id=f"{namespace}/{identity}" if namespace else identity,
            sharing=Sharing(self._choice("sharing", "unsupported sharing value", Sharing) or Sharing.SHARED),
            seed=seed,
            read_only=self._is_read_only(default=False),
            mode=self._mode(),
            uid=self._number_of("uid"),
            gid=self._number_of("gid"),
        )

    def _tmpfs(self) -> TmpfsMount:
        return TmpfsMount(self._target(), self._size(), self._is_read_only(default=False))

    def _secret(self) -> SecretMount:
        source, identity, target = (self._values.get(name, "") for name in ("source", "id", "target"))
        variable = self._values.get("env", "")
        if self._values.get("from"):
            raise self._error("secret mount should not have a from", "from")
        if not (source or identity or target):
            raise self._error("invalid secret mount. one of source, target required", "", hint="name it: id=NAME")
        if source and identity:
            raise self._error("both source and id can't be set", "source")
        identity = source or identity or posixpath.basename(target)
        if not target and not variable:
            target = f"/run/secrets/{posixpath.basename(identity)}"
        return SecretMount(
            id=identity,
            target=self._joined(target) if target else "",
            variable=self._variable(variable),
            required=self._truth("required", self._values.get("required", "false")),
            mode=0o400 if (mode := self._mode()) is None else mode,
            uid=self._number_of("uid") or 0,
            gid=self._number_of("gid") or 0,
        )

    def _ssh(self) -> SshMount:
        if self._values.get("source"):
            raise self._error("ssh does not support source", "source")
        return SshMount(
            id=self._values.get("id") or "default",
            target=self._joined(self._values.get("target") or f"/run/buildkit/ssh_agent.{self._agents}"),
            required=self._truth("required", self._values.get("required", "false")),
            mode=0o600 if (mode := self._mode()) is None else mode,
            uid=self._number_of("uid") or 0,
            gid=self._number_of("gid") or 0,
        )

    def _source(self) -> str:
        """The path below the root of the origin; nothing leads out of that."""
        return posixpath.normpath("/" + self._values.get("source", "")).lstrip("/")

    def _origin(self) -> Origin:
        try:
            return self._scope.origin(self._values.get("from", ""))
        except DockerfileError as error:
            error.span = error.span or f"from={self._values['from']}"
            raise

    def _target(self) -> str:
        return self._joined(self._values.get("target", ""))

    def _joined(self, target: str) -> str:
        """A target as an absolute path; a relative one begins at the working directory."""
        path = posixpath.normpath("/" + posixpath.join(self._state.directory, target).lstrip("/"))
        if path == "/":
            raise self._error('invalid mount target "/"', "target", hint="name a folder: target=/PATH")
        return path

    def _is_read_only(self, *, default: bool) -> bool:
        value = self._values.get("readonly")
        return default if value is None else self._truth("readonly", value)

    def _truth(self, key: str, value: str) -> bool:
        if value not in _TRUE | _FALSE:
            raise self._error(f"invalid value for {key}: {value}", key, hint="it is true or false")
        return value in _TRUE

    def _choice(self, name: str, complaint: str, choices: Mapping[str, object] | type[Sharing]) -> str:
        """One of a few words, in lower case; "" if the key is not there."""
        value = self._values.get(name)
        if value is None:
            return ""
        known = [str(choice) for choice in choices]
        if value.lower() not in known:
            raise self._error(f"{complaint} {quoted(value)}", name, hint=_did_you_mean(value, known))
        return value.lower()

    def _mode(self) -> int | None:
        value = self._values.get("mode")
        if value is None:
            return None
        if not re.fullmatch("0*[0-7]{1,4}", value, re.ASCII):
            raise self._error(f"invalid value {value} for mode", "mode", hint="it is an octal number such as 0755")
        return int(value, 8)

    def _number_of(self, name: str) -> int | None:
        """A user or group as a number."""
        value = self._values.get(name)
        if value is None:
            return None
        if not re.fullmatch(r"\d{1,10}", value, re.ASCII) or int(value) >= 1 << 31:
            raise self._error(f"invalid value {value} for {name}", name, hint="it is a number, from 0 to 2147483647")
        return int(value)

    def _size(self) -> int | None:
        """Bytes; the units are powers of 1024 however they are written. 0 is no limit."""
        value = self._values.get("size")
        if value is None:
            return None
        try:
            return size(value) or None
        except ValueError:
            hint = "it is a number of bytes, or 64m, 1g"
            raise self._error(f"invalid value for size: {value}", "size", hint=hint) from None

    def _variable(self, name: str) -> str:
        if "=" in name or "\0" in name:
            raise self._error(f"invalid value for env: {name}", "env", hint="it is the name of a variable")
        return name

    def _error(self, message: str, name: str, *, hint: str = "") -> DockerfileError:
        """An error that marks the field of a name, or all of the mount."""
        span = self._text.text
        for key, value in self._text.fields:
            if name and name in {key, _NAMES.get(key)}:
                span = key if value is None else f"{key}={value}"
        return DockerfileError(message, hint=hint, span=span)


def _did_you_mean(word: str, known: Mapping[str, object] | list[str]) -> str:
    near = closest(word, known)
    return f"did you mean {near}?" if near else "it is one of " + ", ".join(known)
