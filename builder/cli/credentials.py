"""--secret and --ssh, as `docker buildx build` has them.

What they name is read at once: later the process may have become another user, who cannot read it.
"""

import os
import stat
from collections.abc import Mapping, Sequence

from builder.credentials import Credentials, Secret, SshAgent
from builder.errors import UsageError

_LARGEST_SECRET = 500 * 1024
"""BuildKit's limit; commands take 128 KiB as one variable anyway (MAX_ARG_STRLEN)."""
_LARGEST_KEY = 100 * 1024


def credentials(secrets: Sequence[str], agents: Sequence[str], environment: Mapping[str, str]) -> Credentials:
    """What the options lend; UsageError says what is wrong with one."""
    return Credentials(
        dict(_secret(text, environment) for text in secrets),
        dict(_agents(agents, environment.get("SSH_AUTH_SOCK", ""))),
    )


def _secret(text: str, environment: Mapping[str, str]) -> tuple[str, Secret]:
    """One --secret: `id=ID,src=FILE`, `id=ID,env=NAME`, or `id=ID` for a variable or else a file of that name."""
    import csv  # few builds have secrets

    fields = {"type": "", "id": "", "src": "", "env": ""}
    for part in next(csv.reader([text]), []):
        key, equals, value = part.partition("=")
        name = {"source": "src"}.get(key.lower(), key.lower())
        if not equals:
            raise UsageError(f"--secret {text}: invalid field {part!r} must be a key=value pair")
        if name not in fields:
            raise UsageError(f"--secret {text}: unexpected key {key!r}", hint="there are id, src, env and type")
        fields[name] = value
    identity, path, variable = fields["id"], fields["src"], fields["env"]
    if fields["type"] not in {"", "file", "env"}:
        raise UsageError(f"--secret {text}: unsupported secret type {fields['type']!r}", hint="it is file or env")
    if not identity:
        raise UsageError(f"--secret {text}: the id is missing", hint="write id=NAME,src=FILE or id=NAME,env=VARIABLE")
    if fields["type"] == "env" and not variable:
        variable, path = path or identity, ""
    if not variable and not path:
        variable, path = (identity, "") if identity in environment else ("", identity)
    if variable:
        return identity, Secret(os.fsencode(environment.get(variable, "")), "" if variable in environment else variable)
    return identity, Secret(_read("--secret", path, _LARGEST_SECRET))


def _agents(texts: Sequence[str], usual: str) -> dict[str, SshAgent]:
    """All --ssh: `ID`, `ID=SOCKET` or `ID=KEY[,KEY]`; `usual` is the socket of the person's own agent."""
    agents: dict[str, SshAgent] = {}
    for text in texts:
        identity, _, paths = text.partition("=")
        identity = identity or "default"
        if identity in agents:
            raise UsageError(f"--ssh {text}: {identity} is given twice")
        if not paths and not usual:
            raise UsageError(
                f"--ssh {text}: no agent is there to forward",
                hint="start one (eval $(ssh-agent), ssh-add), so that SSH_AUTH_SOCK is set; or --ssh ID=KEYFILE",
            )
        agents[identity] = _agent(text, (paths or usual).split(","))
    return agents


def _agent(text: str, paths: Sequence[str]) -> SshAgent:
    sockets = [path for path in paths if _is_socket(path)]
    if not sockets:
        return SshAgent(keys=tuple((path, _read("--ssh", path, _LARGEST_KEY)) for path in paths))
    if len(paths) > 1:
        raise UsageError(f"--ssh {text}: a socket stands alone", hint="give it an id of its own: --ssh ID=SOCKET")
    return SshAgent(os.path.abspath(sockets[0]))


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        raise UsageError(f"--ssh: {path}: {(error.strerror or str(error)).lower()}") from error


def _read(option: str, path: str, most: int) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"{option}: {path} cannot be read: {reason.lower()}") from error
    if len(data) > most:
        raise UsageError(f"{option}: {path} is too big: at most {most // 1024} KiB")
    return data
