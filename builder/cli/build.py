"""`pybuild build`: options as `docker buildx build` has them."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast, get_args

from builder.arguments import MULTI_PLATFORM
from builder.build import Clocks, build
from builder.cli.arguments import Parser, add_store_options, pair, platforms_of
from builder.cli.asked import Asked
from builder.cli.caches import add_cache_options, cache_sources, cache_targets
from builder.cli.outputs import add_output_options, outputs_of
from builder.cli.registries import registry_settings
from builder.cli.run_options import (
    add_run_options,
    allowed_by,
    backend_of,
    credentials_of,
    limits_of,
    run_settings_of,
    step_timeout_of,
)
from builder.cli.world import World
from builder.errors import UsageError
from builder.events import Event
from builder.options import BuildOptions
from builder.progress.choose import Mode, open_listener, transcript
from cache.receipts import Receipt, keep
from cache.stamps import look_at
from layers.oci import Platform


def main(arguments: Sequence[str], world: World) -> int:
    """Build an image."""
    parser = Parser(prog="pybuild build", description="Build an image from a Dockerfile.")
    add_build_options(parser)
    given = parser.parse_args(arguments)
    options = options_of(given, world)
    to_stdout = any(output.destination == "-" for output in options.outputs)
    mode = _mode(given, world.environment)
    if given.call or given.check:
        status = _answer(given.call or "check", options, mode, world)
        if status is not None:
            return status
    with open_listener(mode, world.err, world.monotonic) as listener:
        result = build(options, listener, Clocks(world.monotonic, world.now_ns))
    said = f"{result.image_id}\n" if given.quiet and not to_stdout else ""
    world.out.write(said)
    if result.receipt and mode != "rawjson":  # whose lines tell when something was
        _keep(result.receipt, said, result.events_if_cached, mode, options.root, world)
    return 0


def _mode(given: argparse.Namespace, environment: Mapping[str, str]) -> Mode:
    """How progress is shown: as the options say, else as BUILDKIT_PROGRESS does."""
    if given.quiet:
        return "quiet"
    named = environment.get("BUILDKIT_PROGRESS", "") if given.progress == "auto" else ""
    if named and named not in get_args(Mode):
        raise UsageError(f"BUILDKIT_PROGRESS is {named!r}", hint=f"there are {', '.join(get_args(Mode))}")
    return cast(Mode, named or given.progress)


def _keep(receipt: Receipt, out: str, events: Sequence[Event], mode: Mode, root: str, world: World) -> None:
    """Have the next build that is asked the same look first whether anything is to be done."""
    answers = world.environment.answers if isinstance(world.environment, Asked) else None
    if world.question is None or answers is None:
        return
    err = transcript(mode, world.err, events)
    receipt.environment |= answers
    receipt.places |= {path: look_at(path) for path in _program()}
    receipt.said = out.encode(world.out.encoding, "replace"), err.encode(world.err.encoding, "replace")
    with suppress(OSError):  # a full disk, or another build that is about the same: the image is there
        keep(root, world.question, receipt)


def _program() -> list[str]:
    """The files that this program was read from, without the standard library."""
    library = os.path.dirname(os.__file__) + os.sep
    packages = os.path.join(library, "site-packages")
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    return [file for file in files if file and (not file.startswith(library) or file.startswith(packages))]


def _answer(text: str, options: BuildOptions, mode: Mode, world: World) -> int | None:
    """Answer a question about the Dockerfile; None if it is a build after all that is called for."""
    from builder.call.answer import answer, parse_call  # few want to know, most want to build

    call = parse_call(text)
    if call.method == "build":
        return None
    with open_listener(mode, world.err, world.monotonic) as listener:
        given = answer(call, options, listener, Clocks(world.monotonic, world.now_ns))
    world.out.write(given.text)
    return given.status


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """The context, and all that can be said of a build."""
    parser.add_argument(
        "context",
        metavar="CONTEXT",
        help="a folder, a git repository, the URL of a tar, or `-`: a tar or a Dockerfile on standard input",
    )
    parser.add_argument("-t", "--tag", action="append", default=[], metavar="NAME", help="name the image; repeatable")
    parser.add_argument("-f", "--file", default="", metavar="FILE", help="the Dockerfile; `-`: standard input")
    parser.add_argument("--target", default="", metavar="STAGE", help="build this stage instead of the last")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME[=VALUE]", help="set an ARG")
    parser.add_argument("--label", action="append", default=[], metavar="NAME[=VALUE]", help="add a label to the image")
    parser.add_argument(
        "--build-context",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="another context: a folder, a git repository, a URL, docker-image://REF, oci-layout://DIR[:TAG][@DIGEST]",
    )
    add_output_options(parser)
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH[,...]",
        help="build for these; several give an index. Else for this machine",
    )
    add_run_options(parser)
    parser.add_argument("--no-cache", action="store_true", help="run every step, whatever the cache has")
    parser.add_argument(
        "--no-cache-filter",
        action="append",
        default=[],
        metavar="STAGE[,...]",
        help="run every step of these stages, whatever the cache has",
    )
    add_cache_options(parser)
    parser.add_argument("--pull", action="store_true", help="look base images up in their registry again")
    parser.add_argument(
        "--call", default="", metavar="METHOD", help="build, or tell instead: check, outline, targets[,format=json]"
    )
    parser.add_argument("--check", action="store_true", help="tell what is doubtful in the Dockerfile: --call=check")
    parser.add_argument("--iidfile", default="", metavar="FILE", help="write the image id to a file")
    parser.add_argument("--metadata-file", default="", metavar="FILE", help="write which image it is to a file, JSON")
    parser.add_argument("--progress", default="auto", choices=get_args(Mode))
    parser.add_argument("-q", "--quiet", action="store_true", help="print the image id alone")
    for name in ("--rm", "--force-rm", "--compress"):  # of docker build: it is so in any case
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    add_store_options(parser)


def options_of(given: argparse.Namespace, world: World) -> BuildOptions:
    """What the options mean; UsageError for what they cannot mean."""
    platforms = platforms_of(given.platform)
    build_args = _build_args(given.build_arg, world.environment)
    index = build_args.get(MULTI_PLATFORM, "").lower() in {"1", "t", "true"}
    outputs, packing = outputs_of(given, platforms or (Platform.host(),), index=index)
    return BuildOptions(
        context=given.context,
        root=given.root or world.default_root(),
        platforms=platforms,
        dockerfile=given.file,
        tags=tuple(given.tag),
        target=given.target,
        build_args=build_args,
        labels=dict(_label(text) for text in given.label),
        contexts=dict(pair("--build-context", text) for text in given.build_context),
        outputs=outputs,
        source_date_epoch=given.source_date_epoch,
        unset_env=tuple(given.unsetenv),
        unset_labels=tuple(given.unsetlabel),
        packing=packing,
        credentials=credentials_of(given, world.environment),
        network=given.network,
        allowed=allowed_by(given),
        run_settings=run_settings_of(given),
        limits=limits_of(given),
        step_timeout=step_timeout_of(given),
        backend=backend_of(given, world.environment),
        use_cache=not given.no_cache,
        fresh_stages=_fresh_stages(given),
        cache_from=cache_sources(given.cache_from, world.environment),
        cache_to=cache_targets(given.cache_to, build_args, world.environment),
        pull=given.pull,
        iid_file=given.iidfile,
        metadata_file=given.metadata_file,
        registries=registry_settings(given, world),
        environment=world.environment,
    )


def _label(text: str) -> tuple[str, str]:
    """`NAME=VALUE`, or `NAME` alone for an empty value, as docker has it."""
    name, _, value = text.partition("=")
    if not name:
        raise UsageError(f"--label {text!r} has no name")
    return name, value


def _fresh_stages(given: argparse.Namespace) -> frozenset[str]:
    names = frozenset(name.strip().lower() for text in given.no_cache_filter for name in text.split(","))
    if names and given.no_cache:
        raise UsageError("--no-cache and --no-cache-filter exclude each other", hint="--no-cache means all stages")
    return names - {""}


def _build_args(texts: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` alone for the value that the caller's environment has; if it has none, nothing is set."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise UsageError(f"--build-arg {text!r} has no name")
        if equals:
            values[name] = value
        elif name in environment:
            values[name] = environment[name]
    return values
