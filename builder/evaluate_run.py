"""What RUN means: the command, and everything that it will see."""

from builder.arguments import proxy_variables
from builder.dockerfile import instructions as d
from builder.errors import DockerfileError
from builder.stage_state import Scope, StageState
from builder.steps.step import Run


def run_action(run: d.Run, state: StageState, scope: Scope) -> Run:
    """The action of a RUN in its stage."""
    for flag, given in (
        ("--mount", run.mounts),
        ("--device", run.devices),
        ("--security=insecure", run.security == "insecure"),
    ):
        if given:
            raise DockerfileError(f"RUN with {flag} is not supported yet")
    if isinstance(run.command, d.Script):
        raise DockerfileError("a here-document that begins with #! is not supported yet")
    return Run(
        argv=state.argv(run.command),
        environment=tuple(sorted(state.environment.items())),
        directory=state.directory,
        user=state.config.config.user,
        network=run.network,
        proxies=proxy_variables(scope.build_args),
    )
