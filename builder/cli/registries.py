"""How registries are spoken to: options, environment and the usual files, as one value that reads none of them."""

import argparse
import os
from collections.abc import Mapping

from builder.cli.arguments import registry_mirrors
from builder.cli.world import World
from builder.errors import UsageError
from layers.registry.reference import DOCKER_HUB, DOCKER_HUB_ALIASES
from layers.registry.settings import GivenLogin, RegistrySettings


def add_login_options(parser: argparse.ArgumentParser, *, creds: bool = True) -> None:
    """Which logins are used, in place of those that are stored."""
    parser.add_argument("--authfile", default="", metavar="FILE", help="where logins are; else $REGISTRY_AUTH_FILE")
    if creds:
        parser.add_argument("--creds", default="", metavar="USER:PASSWORD", help="the login; stored nowhere")


def registry_settings(given: argparse.Namespace, world: World, *, places: tuple[str, ...] = ()) -> RegistrySettings:
    """What the options and the environment say; `places` are those that --creds is for."""
    environment = world.environment
    auth_file = _chosen_auth_file(given, world)
    creds = getattr(given, "creds", "")
    return RegistrySettings(
        insecure=frozenset(getattr(given, "insecure_registry", [])),
        mirrors=registry_mirrors(getattr(given, "registry_mirror", [])),
        rules=_rules(world),
        logins=(*(_login(creds, place) for place in places if creds), *_environment_login(environment)),
        auth_document=environment.get("DOCKER_AUTH_CONFIG", ""),
        docker_config=None if auth_file else world.docker_config(),
        auth_files=(auth_file,) if auth_file else _auth_files(world),
        ca_file=world.ca_file() or None,
        certificates=_certificates(world),
    )


def auth_place(given: argparse.Namespace, world: World) -> str:
    """The file in which logins are kept and forgotten."""
    return _chosen_auth_file(given, world) or os.path.join(world.docker_config(), "config.json")


def split_place(text: str) -> tuple[str, str]:
    """Host and namespace of what a person logs in to, which may be written as a URL."""
    bare = text.removeprefix("https://").removeprefix("http://").strip("/")
    host, _, namespace = bare.partition("/")
    if not host:
        raise UsageError(f"{text!r} is not a registry", hint="write HOST[:PORT][/NAMESPACE]")
    if host in DOCKER_HUB_ALIASES:
        host = DOCKER_HUB
    return host, "" if namespace in {"v1", "v2"} else namespace


def _chosen_auth_file(given: argparse.Namespace, world: World) -> str:
    return getattr(given, "authfile", "") or world.environment.get("REGISTRY_AUTH_FILE", "")


def _login(creds: str, place: str) -> GivenLogin:
    username, colon, password = creds.partition(":")
    if not colon or not username:
        raise UsageError("--creds: it is written USER:PASSWORD")
    return GivenLogin(place, username, password)


def _environment_login(environment: Mapping[str, str]) -> tuple[GivenLogin, ...]:
    """The login of $PYBUILD_REGISTRY; a half of one is an error, since it would go nowhere in silence."""
    names = ("PYBUILD_REGISTRY", "PYBUILD_REGISTRY_USER", "PYBUILD_REGISTRY_PASSWORD")
    place, username, password = (environment.get(name, "") for name in names)
    if not username and not password:
        return ()
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be set too", hint=f"{', '.join(names)} are one login")
    return (GivenLogin(place.removeprefix("https://").rstrip("/"), username, password),)


def _rules(world: World) -> tuple[str, ...]:
    """Files and folders of registries.conf, the weakest first (containers-registries.conf(5) and its .d(5))."""
    chosen = world.environment.get("CONTAINERS_REGISTRIES_CONF")
    if chosen:
        return (chosen,)
    own = os.path.join(_config_home(world), "containers", "registries.conf")
    main = own if os.path.exists(own) else "/etc/containers/registries.conf"
    return (main, "/etc/containers/registries.conf.d", f"{own}.d")


def _auth_files(world: World) -> tuple[str, ...]:
    """Where podman, buildah and skopeo keep logins (containers-auth.json(5))."""
    runtime = world.environment.get("XDG_RUNTIME_DIR")
    folders = [*([runtime] if runtime else []), _config_home(world)]
    return tuple(os.path.join(folder, "containers", "auth.json") for folder in folders)


def _certificates(world: World) -> tuple[str, ...]:
    home = _config_home(world)
    return (
        os.path.join(home, "containers", "certs.d"),
        "/etc/containers/certs.d",
        os.path.join(home, "docker", "certs.d"),
        "/etc/docker/certs.d",
    )


def _config_home(world: World) -> str:
    return world.environment.get("XDG_CONFIG_HOME") or os.path.join(world.home, ".config")
