"""How -o and --annotation are written: `docker buildx build`'s grammar, as values."""

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence

from builder.cli.attest import add_attest_options, attestations_of
from builder.errors import UsageError
from builder.export.output import FILE_SYSTEMS, Annotations, Form, Output, Packing, Squash, Texts
from builder.export.outputs import full_names
from layers.compress import Compression
from layers.oci import Platform

_BOOLEANS = {"true": True, "1": True, "": True, "false": False, "0": False}
_PLACES: Mapping[str, Callable[[Texts], Annotations]] = {
    "": lambda texts: Annotations(manifest=texts),
    "manifest": lambda texts: Annotations(manifest=texts),
    "index": lambda texts: Annotations(index=texts),
    "manifest-descriptor": lambda texts: Annotations(manifest_descriptor=texts),
    "index-descriptor": lambda texts: Annotations(index_descriptor=texts),
}
"""What documents annotations can be of, by the names that people use."""
_LEVELS = {Compression.GZIP: range(10), Compression.ZSTD: range(23), Compression.ESTARGZ: range(10)}
_REGISTRY_KEYS = ("push", "push-by-digest", "name-canonical", "registry.insecure")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """The options of a build that say in what form the image is wanted, and where."""
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        metavar="SPEC",
        help="type=image|oci|docker|tar|local|registry|cacheonly[,dest=FILE|-|DIR][,KEY=VALUE], or a folder for local",
    )
    parser.add_argument("--load", action="store_true", help="hand the image to docker or podman as well")
    parser.add_argument("--push", action="store_true", help="push the image to the registries of its names as well")
    parser.add_argument(
        "--annotation", action="append", default=[], metavar="[PLACE:]NAME=VALUE", help="annotate manifest or index"
    )
    parser.add_argument(
        "--source-date-epoch", default="", metavar="N|git|context", help="the time of all that is new in the image"
    )
    parser.add_argument("--unsetenv", action="append", default=[], metavar="NAME", help="leave a variable out")
    parser.add_argument("--unsetlabel", action="append", default=[], metavar="NAME", help="leave a label out")
    add_attest_options(parser)
    squash = parser.add_mutually_exclusive_group()
    squash.add_argument(
        "--squash", action="store_const", const=Squash.NEW, default=Squash.NONE, help="make one layer of the new ones"
    )
    # A whole option to argparse: with a value that may be left out, `--squash .` would take the context for one.
    squash.add_argument(
        "--squash=all", dest="squash", action="store_const", const=Squash.ALL, help="make one layer of all"
    )


def outputs_of(
    given: argparse.Namespace, platforms: tuple[Platform, ...], *, index: bool = False
) -> tuple[tuple[Output, ...], Packing]:
    """The outputs that the options ask for, and how the image is packed where an output does not say.

    `platforms` are those that are built for; with `index` a single image gets an index around it too.
    """
    annotations, attestations = parse_annotations(given.annotation, platforms), attestations_of(given)
    packing = Packing(squash=given.squash, annotations=annotations, attestations=attestations, index=index)
    outputs = parse_outputs(given.output, platforms, defaults=packing)
    if (given.load or given.push) and not outputs:
        outputs = (Output(Form.IMAGE, packing=packing, spare=not given.load),)
    if given.load:
        outputs = (*outputs, Output(Form.DOCKER, packing=packing))
    if given.push:
        outputs = (*outputs, Output(Form.REGISTRY, packing=packing))
    return outputs, packing


def parse_outputs(texts: Sequence[str], platforms: tuple[Platform, ...], *, defaults: Packing) -> tuple[Output, ...]:
    """What each -o means; what one does not say of its packing is as in `defaults`."""
    outputs = tuple(_Parsing(text, platforms, defaults).output() for text in texts)
    if sum(output.is_stdout for output in outputs) > 1:
        raise UsageError("two outputs want standard output", hint="give one of them a file: dest=FILE")
    return outputs


def parse_annotations(texts: Sequence[str], platforms: tuple[Platform, ...]) -> Annotations:
    """What each --annotation means: `[PLACE[PLATFORM][,...]:]NAME=VALUE`."""
    annotations = Annotations()
    for text in texts:
        places, name, value = _split_annotation(text)
        for place in places.split(","):
            annotations = annotations.joined(_annotation(place, name, value, platforms, f"--annotation {text}"))
    return annotations


def compression_of(kind: str, level: str, option: str) -> tuple[Compression | None, int | None]:
    """A compression and its level, either of which may be left out: None. UsageError for what there is not."""
    if kind and kind not in set(Compression):
        raise UsageError(f"{option}: there is no compression {kind}", hint=f"there are {', '.join(Compression)}")
    compression = Compression(kind) if kind else None
    if not level:
        return compression, None
    compression = compression or Compression.GZIP
    levels = _LEVELS.get(compression, range(0))
    if not (level.isascii() and level.isdigit() and int(level) in levels):
        allowed = f"0 to {levels[-1]}" if levels else "none"
        raise UsageError(f"{option}: the level is {level}, and {compression} has {allowed}")
    return compression, int(level)


def squash_of(text: str, option: str) -> Squash:
    """`new`, `all`, or a boolean for `new`."""
    if text in set(Squash):
        return Squash(text)
    if text in _BOOLEANS:
        return Squash.NEW if _BOOLEANS[text] else Squash.NONE
    raise UsageError(f"{option}: squash is true, false, new or all")


def refuse_terminal(option: str) -> None:
    """UsageError if standard output is a terminal: an image is not for eyes."""
    if os.isatty(1):
        raise UsageError(
            f"{option}: this is not written to a terminal", hint="redirect standard output, or name a file"
        )


class _Parsing:
    """One -o; each question takes its fields away, so that those left over are the unknown ones."""

    def __init__(self, text: str, platforms: tuple[Platform, ...], defaults: Packing) -> None:
        self._option = f"--output {text}"
        self._platforms = platforms
        self._defaults = defaults
        self._fields = self._read(text)

    def output(self) -> Output:
        """The whole of it; UsageError for what is unknown, missing, or of no use with this type."""
        form = self._form()
        destination = self._fields.pop("dest", "")
        tar = self._boolean("tar", default=True) if form is Form.OCI else True
        destination = self._checked(form, destination, tar=tar)
        if form is Form.CACHEONLY:
            output = Output(form, destination, packing=self._defaults)
        elif form in FILE_SYSTEMS:
            if self._defaults.attestations:
                raise self._wrong("attestations belong to images, and a root file system has no place for them")
            split = self._optional_boolean("platform-split")
            output = Output(form, destination, split=self._defaults.index or None if split is None else split)
        else:
            names, packing = self._names(), self._packing()
            rest = {key: self._fields.pop(key) for key in _REGISTRY_KEYS if key in self._fields}
            output = Output(form, destination, tar, names, packing, rest)
        if self._fields:
            raise self._wrong(f"{form} outputs have no {', '.join(self._fields)}", hint="docs/outputs.md lists all")
        return output

    def _checked(self, form: Form, destination: str, *, tar: bool) -> str:
        """Where it goes, if that is something for outputs of this form."""
        if destination and form in {Form.IMAGE, Form.REGISTRY, Form.CACHEONLY}:
            raise self._wrong(f"{form} outputs have no dest")
        if form is Form.LOCAL and destination in {"", "-"}:
            raise self._wrong("dest= is missing: the folder")
        if form in {Form.OCI, Form.TAR} and not destination:
            if not tar:
                raise self._wrong("dest= is missing: the folder")
            destination = "-"
        if destination == "-":
            if not tar:
                raise self._wrong("a folder cannot go to standard output")
            refuse_terminal(self._option)
        return destination

    def _read(self, text: str) -> dict[str, str]:
        import csv  # few builds have an output beside the store

        parts = next(csv.reader([text]), [])
        if parts == [text] and "=" not in text:
            return {"type": "tar", "dest": "-"} if text == "-" else {"type": "local", "dest": text}
        fields = {}
        for part in parts:
            key, equals, value = part.partition("=")
            if not key or not equals:
                raise self._wrong(f"{part!r} is not written KEY=VALUE")
            fields[key.strip()] = value
        return fields

    def _form(self) -> Form:
        kind = self._fields.pop("type", "")
        if kind not in set(Form):
            there = ", ".join(Form)
            raise self._wrong(f"there is no type {kind}" if kind else "type= is missing", hint=f"the types are {there}")
        return Form(kind)

    def _names(self) -> tuple[str, ...]:
        text = self._fields.pop("name", "")
        return full_names(text.split(","), option=f"{self._option}: name") if text else ()

    def _packing(self) -> Packing:
        compression, level = compression_of(
            self._fields.pop("compression", ""), self._fields.pop("compression-level", ""), self._option
        )
        squash = self._fields.pop("squash", None)
        docker_types = not self._boolean("oci-mediatypes", default=not self._defaults.docker_types)
        if docker_types and compression is Compression.ESTARGZ:
            raise self._wrong("estargz needs annotations of layers, which only OCI's manifests have")
        if docker_types and self._defaults.attestations:
            raise self._wrong("attestations need OCI's media types")
        return Packing(
            compression=compression,
            level=level,
            force=self._boolean("force-compression", default=self._defaults.force),
            docker_types=docker_types,
            squash=self._defaults.squash if squash is None else squash_of(squash, self._option),
            annotations=self._annotations(),
            attestations=self._defaults.attestations,
            index=self._defaults.index,
        )

    def _annotations(self) -> Annotations:
        annotations = self._defaults.annotations
        for key in [key for key in self._fields if key.startswith("annotation")]:
            value = self._fields.pop(key)
            place, dot, name = key.removeprefix("annotation").partition(".")
            if not dot or not name:
                raise self._wrong(f"{key} is not written annotation[-PLACE].NAME")
            annotations = annotations.joined(
                _annotation(place.removeprefix("-"), name, value, self._platforms, self._option)
            )
        return annotations

    def _boolean(self, key: str, *, default: bool) -> bool:
        value = self._optional_boolean(key)
        return default if value is None else value

    def _optional_boolean(self, key: str) -> bool | None:
        text = self._fields.pop(key, None)
        if text is None:
            return None
        if text not in _BOOLEANS:
            raise self._wrong(f"{key} is true or false")
        return _BOOLEANS[text]

    def _wrong(self, what: str, *, hint: str = "") -> UsageError:
        return UsageError(f"{self._option}: {what}", hint=hint)


def _split_annotation(text: str) -> tuple[str, str, str]:
    """Places, name and value. A name may have colons of its own: only what can be a place is one."""
    head, equals, value = text.partition("=")
    place = r"(?:manifest|index|manifest-descriptor|index-descriptor)(?:\[[^]]*\])?"
    found = re.fullmatch(rf"({place}(?:,{place})*):(.*)", head)
    places, name = (found[1], found[2]) if found else ("", head)
    if not equals or not name:
        raise UsageError(f"--annotation {text!r}: it is written [PLACE:]NAME=VALUE")
    return places, name, value


def _annotation(place: str, name: str, value: str, platforms: tuple[Platform, ...], option: str) -> Annotations:
    """One annotation; `place` is such as `index` or `manifest[linux/amd64]`."""
    found = re.fullmatch(r"([a-z-]*)(?:\[([^]]+)\])?", place)
    if found is None or found[1] not in _PLACES:
        raise UsageError(f"{option}: there is no place {place} for annotations", hint=f"there are {', '.join(_PLACES)}")
    annotations = _PLACES[found[1]](((name, value),))
    if not found[2]:
        return annotations
    platform = Platform.parse(found[2])
    if platform not in platforms:
        built = " and ".join(map(str, platforms))
        raise UsageError(f"{option}: the image is for {built}, not for {platform}")
    if annotations.want_index:
        raise UsageError(f"{option}: an index is for all platforms", hint="leave out the platform")
    return Annotations(by_platform=((platform, annotations),)) if len(platforms) > 1 else annotations
