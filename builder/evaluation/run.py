"""What RUN means: the command, and everything that it will see."""

from builder.arguments import HOSTNAME, proxy_variables
from builder.dockerfile import instructions as d
from builder.dockerfile.texts import quoted
from builder.errors import DockerfileError
from builder.evaluation.stage_state import Scope, StageState
from builder.steps.step import Run, RunMount, Script

PIPES = "/dev/pipes"
"""Where BuildKit puts here-documents that are executed."""

NETWORK_HOST, INSECURE = "network.host", "security.insecure"
ENTITLEMENTS = frozenset({NETWORK_HOST, INSECURE})
"""What has to be allowed on the command line, by --allow."""


def run_action(run: d.Run, state: StageState, scope: Scope) -> Run:
    """The action of a RUN in its stage; DockerfileError if it asks for what was not allowed."""
    for device in run.devices:
        raise DockerfileError(
            "RUN --device is not supported: pybuild gives no devices to commands", span=f"--device={device}"
        )
    _demand(NETWORK_HOST, "--network=host", scope, needed=run.network == "host")
    _demand(INSECURE, "--security=insecure", scope, needed=run.security == "insecure")
    script = _script(run.command) if isinstance(run.command, d.Script) else None
    if isinstance(run.command, d.Script):
        # As in BuildKit, the shell executes it, so that `#!` means what it means there.
        argv = (*state.shell, _for_shell(f"{PIPES}/{run.command.name}"))
    else:
        argv = state.argv(run.command)
    if not argv:
        raise DockerfileError("RUN needs a command", hint='RUN ["program", "argument"], or RUN command')
    return Run(
        argv=argv,
        environment=tuple(sorted(state.environment.items())),
        directory=state.directory,
        user=state.config.config.user,
        platform=state.config.platform,
        network=scope.network if run.network == "default" else run.network,
        proxies=proxy_variables(scope.build_args),
        mounts=_mounts(run, state, scope),
        script=script,
        insecure=run.security == "insecure",
        hostname=scope.build_args.get(HOSTNAME, ""),
        settings=scope.run_settings,
    )


def _mounts(run: d.Run, state: StageState, scope: Scope) -> tuple[RunMount, ...]:
    if not run.mounts:
        return ()
    from builder.evaluation.mounts import run_mounts  # most Dockerfiles have none

    return run_mounts(run, state, scope)


def _demand(entitlement: str, flag: str, scope: Scope, *, needed: bool) -> None:
    if needed and entitlement not in scope.allowed:
        raise DockerfileError(
            f"{entitlement} is not allowed", hint=f"to allow it, build with --allow {entitlement}", span=flag
        )


def _script(script: d.Script) -> Script:
    """A here-document as the file that is executed."""
    if "/" in script.name or script.name in {".", ".."}:
        raise DockerfileError(
            f"a here-document that begins with #! cannot be named {quoted(script.name)}",
            hint="it is made a file of that name: choose one without slashes",
            span=script.name,
        )
    return Script(f"{PIPES}/{script.name}", script.text)


def _for_shell(path: str) -> str:
    """A path as a word for a shell; one with nothing special in it stays as it is."""
    import shlex  # for few Dockerfiles only

    return shlex.quote(path)
