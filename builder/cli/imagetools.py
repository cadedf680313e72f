"""`pybuild imagetools`: indexes of images that are there already, and what names stand for."""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from builder.cli.arguments import Parser, add_store_options, platforms_of
from builder.cli.outputs import parse_annotations
from builder.cli.registries import add_login_options, registry_settings
from builder.cli.world import World
from builder.errors import UsageError
from builder.export.output import Annotations
from builder.export.outputs import full_names
from builder.images import OCI_LAYOUT
from builder.imagetools.combine import annotated, combine
from builder.imagetools.describe import FORMATS, as_json, as_text
from builder.imagetools.gather import Found, Gathering
from builder.progress.choose import open_listener
from builder.report import Report
from cache.store import Store
from layers.oci import INDEXES, Index
from layers.registry.client import Registry
from layers.registry.reference import Reference

_USAGE = """usage: pybuild imagetools create -t NAME [OPTIONS] SOURCE...
       pybuild imagetools inspect [OPTIONS] NAME
"""
_PLACE = re.compile(r"(manifest|index)[a-z,-]*(\[[^]]*\])?:")


def main(arguments: Sequence[str], world: World) -> int:
    """Run one of the two commands."""
    commands = {"create": _create, "inspect": _inspect}
    if arguments and arguments[0] in commands:
        return commands[arguments[0]](arguments[1:], world)
    if arguments and arguments[0] in {"-h", "--help"}:
        world.out.write(_USAGE)
        return 0
    raise UsageError("pybuild imagetools: say create or inspect", hint="pybuild imagetools --help")


def _create(arguments: Sequence[str], world: World) -> int:
    """Make an index, and push it, keep it in the store, or show it."""
    parser = Parser(prog="pybuild imagetools create", description="Make one index of several images and indexes.")
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a name, or oci-layout://DIR[:TAG]")
    parser.add_argument("-t", "--tag", action="append", default=[], metavar="NAME", help="where it is pushed to")
    parser.add_argument("--append", action="store_true", help="keep the other platforms that NAME has")
    parser.add_argument("--dry-run", action="store_true", help="print the index, and push nothing")
    parser.add_argument("--local", action="store_true", help="give NAME in the store to it, and push nothing")
    parser.add_argument("--annotation", action="append", default=[], metavar="[PLACE:]NAME=VALUE", help="of the index")
    parser.add_argument(
        "--platform", action="append", default=[], metavar="OS/ARCH[,...]", help="take the images for these alone"
    )
    parser.add_argument(
        "--prefer-index", default="true", choices=["true", "false"], help="false: one image alone stays a manifest"
    )
    _add_common(parser)
    given = parser.parse_args(arguments)
    names = full_names(given.tag)
    if not names and not given.dry_run:
        raise UsageError("pybuild imagetools create: there is no name", hint="-t NAME, or --dry-run to see the index")
    if given.append and len(names) != 1:
        raise UsageError("pybuild imagetools create: --append goes on with one name", hint="give -t once")
    with _gathering(given, world, (*names, *given.sources)) as (gathering, store):
        sources = [gathering.find(text) for text in given.sources]
        replaced = _find_name(names[0], gathering, local=given.local) if given.append else None
        data, media_type = _document(sources, replaced, given, store)
        if given.dry_run:
            world.out.write(json.dumps(json.loads(data), indent=2) + "\n")
            return 0
        root = store.layout.put(data, media_type)
        if given.local:
            gathering.keep(root, names)
        else:
            gathering.send(root, [Reference.parse(name) for name in names])
        for name in names:
            world.out.write(f"{name}@{root.digest}\n")
    return 0


def _find_name(name: str, gathering: Gathering, *, local: bool) -> Found:
    return gathering.find(name) if local else gathering.from_registry(Reference.parse(name))


def _document(
    sources: Sequence[Found], replaced: Found | None, given: argparse.Namespace, store: Store
) -> tuple[bytes, str]:
    """The bytes of what is made, and their media type. A single source that needs no change stays as it is."""
    platforms = platforms_of(given.platform)
    alone = len(sources) == 1 and replaced is None and not given.annotation and not platforms
    root = sources[0].root
    if alone and (root.media_type in INDEXES or given.prefer_index == "false"):
        return store.layout.read(root), root.media_type
    index = combine(sources, store.layout, replaced=replaced, platforms=platforms)
    index = annotated(index, _annotations(given.annotation, index))
    return index.serialise(), index.media_type


def _annotations(texts: Sequence[str], index: Index) -> Annotations:
    """What --annotation says; without a place it is of the index. Manifests that are there stay as they are."""
    placed = [text if _PLACE.match(text) else f"index:{text}" for text in texts]
    there = tuple(entry.platform for entry in index.offers if entry.platform)
    annotations = parse_annotations(placed, there)
    if (
        annotations.manifest
        or annotations.index_descriptor
        or any(each.manifest for _, each in annotations.by_platform)
    ):
        raise UsageError("--annotation: there are index and manifest-descriptor here; images stay as they are")
    return annotations


def _inspect(arguments: Sequence[str], world: World) -> int:
    """Show what a name stands for."""
    parser = Parser(prog="pybuild imagetools inspect", description="Show what a name stands for.")
    parser.add_argument("name", metavar="NAME", help="a name, or oci-layout://DIR[:TAG]")
    parser.add_argument("--raw", action="store_true", help="print the manifest or index as it is")
    parser.add_argument("--format", default="", choices=["", *FORMATS], metavar="FORMAT", help="json")
    _add_common(parser)
    given = parser.parse_args(arguments)
    if given.raw and given.format:
        raise UsageError("pybuild imagetools inspect: --raw and --format are two forms", hint="give one of them")
    with _gathering(given, world, (given.name,)) as (gathering, store):
        found = gathering.find(given.name)
        if given.raw:
            world.out.write(store.layout.read(found.root).decode())
        elif given.format:
            world.out.write(as_json(found, store.layout, given.format))
        else:
            world.out.write(as_text(found, store.layout))
    return 0


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pull", action="store_true", help="look names up in their registries, not in the store")
    parser.add_argument("--progress", default="auto", choices=["auto", "tty", "plain", "quiet"])
    add_login_options(parser)
    add_store_options(parser)


@contextmanager
def _gathering(given: argparse.Namespace, world: World, names: Sequence[str]) -> Iterator[tuple[Gathering, Store]]:
    """What finds names, and the store that it brings documents into."""
    places = tuple(Reference.parse(name).name for name in names if not name.startswith(OCI_LAYOUT))
    registries = registry_settings(given, world, places=places)
    with (
        closing(Store(given.root or world.default_root())) as store,
        open_listener(given.progress, world.err, world.monotonic) as listener,
    ):
        report = Report(listener, world.monotonic)
        report.entered()
        with Registry(registries, warn=report.warn) as registry:
            yield Gathering(store, registry, report, pull=given.pull), store
