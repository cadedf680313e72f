"""Build arguments that nobody has to declare, and those before the first FROM."""

from collections.abc import Mapping

from builder.dockerfile.instructions import Arg
from builder.dockerfile.words import expand_word
from builder.errors import located
from layers.oci import Platform

_PROXIES = ("ALL_PROXY", "FTP_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
PROXY_ARGUMENTS = frozenset(_PROXIES) | frozenset(name.lower() for name in _PROXIES)
"""Set by --build-arg alone; RUN sees them under both spellings, and neither keys nor history do."""
SYNTAX = "BUILDKIT_SYNTAX"
"""Stands in for `# syntax=`."""
CHECK = "BUILDKIT_DOCKERFILE_CHECK"
"""Stands in for `# check=`."""
CACHE_NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"
"""Goes before the ids of cache mounts."""
HOSTNAME = "BUILDKIT_SANDBOX_HOSTNAME"
"""The host name of commands."""
KEEP_GIT_DIR = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
"""Contexts that are repositories keep their `.git`."""
MULTI_PLATFORM = "BUILDKIT_MULTI_PLATFORM"
"""The result is an index, and its file system in a folder of its platform, also for one platform."""
SOURCE_DATE_EPOCH = "SOURCE_DATE_EPOCH"
"""The time of all that is new in the image; an ARG of this name brings it to commands, whose tools know it."""
CONTROL_ARGUMENTS = frozenset(
    {SYNTAX, CHECK, KEEP_GIT_DIR, CACHE_NAMESPACE, HOSTNAME, MULTI_PLATFORM, SOURCE_DATE_EPOCH}
)
"""They are meant for the builder, and no ARG has to declare them."""


def global_arguments(
    declared: tuple[Arg, ...], build_args: Mapping[str, str], platform: Platform, target: str, escape: str
) -> dict[str, str]:
    """The arguments that FROM lines see, and that a bare ARG brings into a stage."""
    values = _platform_arguments("TARGET", platform) | _platform_arguments("BUILD", Platform.host())
    values["TARGETSTAGE"] = target or "default"
    values.update((name, value) for name, value in build_args.items() if name in values)
    for instruction in declared:
        with located(instruction.location):
            for declaration in instruction.declarations:
                name = expand_word(declaration.name, values.get, escape)
                if name in build_args:
                    values[name] = build_args[name]
                elif declaration.default is not None:
                    values[name] = expand_word(declaration.default, values.get, escape)
    return values


def proxy_variables(build_args: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The proxy arguments as a command sees them: in upper and in lower case."""
    found = {}
    for name in _PROXIES:
        value = build_args.get(name, build_args.get(name.lower()))
        if value is not None:
            found[name] = found[name.lower()] = value
    return tuple(found.items())


def _platform_arguments(prefix: str, platform: Platform) -> dict[str, str]:
    return {
        f"{prefix}PLATFORM": str(platform),
        f"{prefix}OS": platform.os,
        f"{prefix}ARCH": platform.architecture,
        f"{prefix}VARIANT": platform.variant,
    }
