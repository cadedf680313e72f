"""`pybuild login`: a login that the registry accepts, kept where docker or podman would keep it."""

import sys
from collections.abc import Sequence

from builder.cli.arguments import Parser
from builder.cli.registries import add_login_options, auth_place, registry_settings, split_place
from builder.cli.world import World
from builder.errors import UsageError
from layers.registry.settings import GivenLogin


def main(arguments: Sequence[str], world: World) -> int:
    """Try a login, and keep it if it is accepted; it is shown nowhere."""
    parser = Parser(prog="pybuild login", description="Log in to a registry: the login is tried, and then kept.")
    parser.add_argument(
        "place", nargs="?", default="docker.io", metavar="HOST[/NAMESPACE]", help="Docker Hub if left out"
    )
    parser.add_argument("-u", "--username", default="", help="else it is asked for")
    parser.add_argument("-p", "--password", default="", help="other users of the machine can see it: better not")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    parser.add_argument("--insecure-registry", action="append", default=[], metavar="HOST", help="as in build")
    add_login_options(parser, creds=False)
    given = parser.parse_args(arguments)
    host, namespace = split_place(given.place)
    username, password = _asked(given.username, given.password, world, from_stdin=given.password_stdin)
    from builder.registry_login import keep, try_login  # a wrong command line is told without HTTP

    login = GivenLogin(f"{host}/{namespace}".rstrip("/"), username, password)
    note = try_login(login, registry_settings(given, world))
    file = auth_place(given, world)
    keeper = keep(login, file)
    if note:
        world.err.write(f"{note}\n")
    if not keeper:
        world.err.write(f"the password is kept in {file} as it is: a credential helper would keep it better\n")
    world.out.write(f"logged in to {login.place}\n")
    return 0


def _asked(username: str, password: str, world: World, *, from_stdin: bool) -> tuple[str, str]:
    """Name and password from where the person gives them; UsageError if there is nobody to ask."""
    if from_stdin:
        if password:
            raise UsageError("--password and --password-stdin exclude each other")
        if not username:
            raise UsageError("--password-stdin needs --username")
        password = sys.stdin.read().rstrip("\r\n")
    elif not (username and password):
        if not sys.stdin.isatty():
            raise UsageError("there is nobody to ask for a login", hint="pybuild login -u USER --password-stdin HOST")
        import getpass

        username = username or _line("user name: ", world)
        password = password or getpass.getpass("password: ", world.err)
    if not username or not password:
        raise UsageError("user name and password must not be empty")
    return username, password


def _line(question: str, world: World) -> str:
    world.err.write(question)
    world.err.flush()
    return sys.stdin.readline().strip()
