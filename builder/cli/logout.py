"""`pybuild logout`: forgets a login."""

from collections.abc import Sequence

from builder.cli.arguments import Parser
from builder.cli.registries import add_login_options, auth_place, registry_settings, split_place
from builder.cli.world import World


def main(arguments: Sequence[str], world: World) -> int:
    """Remove a login from where `login` keeps it; one that is elsewhere too is told."""
    parser = Parser(prog="pybuild logout", description="Forget the login of a registry.")
    parser.add_argument(
        "place", nargs="?", default="docker.io", metavar="HOST[/NAMESPACE]", help="Docker Hub if left out"
    )
    add_login_options(parser, creds=False)
    given = parser.parse_args(arguments)
    host, namespace = split_place(given.place)
    from builder.registry_login import forget, is_known

    place = f"{host}/{namespace}".rstrip("/")
    if forget(host, namespace, auth_place(given, world)):
        world.out.write(f"the login for {place} is removed\n")
    else:
        world.out.write(f"there was no login for {place} in {auth_place(given, world)}\n")
    if is_known(host, namespace, registry_settings(given, world)):
        world.err.write(f"{place} is still logged in to, by another file or the environment\n")
    return 0
