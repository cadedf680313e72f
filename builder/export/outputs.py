"""Where an image goes: the store, under its names, or the outputs that the person asked for."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from builder.errors import UsageError
from builder.options import OciOutput
from builder.report import Report
from layers.errors import ImageError, PybuildError
from layers.layout import Layout
from layers.oci import Image
from layers.registry.reference import Reference


def full_names(tags: Sequence[str]) -> tuple[str, ...]:
    """The names of -t with host and tag spelt out, as the store has them."""
    names = []
    for tag in tags:
        try:
            reference = Reference.parse(tag)
        except ImageError as error:
            raise UsageError(f"-t {tag}: {error.message}", hint=error.hint) from error
        if reference.digest:
            raise UsageError(f"-t {tag}: a digest cannot be chosen", hint="leave out what begins with @")
        names.append(str(reference))
    return tuple(names)


def deliver(image: Image, names: Sequence[str], outputs: Sequence[OciOutput], store: Layout, report: Report) -> None:
    """Put the image where it should go. Names appear last, when all that they lead to is there."""
    if not outputs:
        for name in names:
            store.tag(name, image.descriptor)
        return
    from builder.export import oci  # a build into the store needs no tar writer

    for output in outputs:
        with report.running(f"exporting to oci image format: {output.destination}"):
            if not output.tar:
                oci.write_folder(image, names, store, output.destination)
            elif output.destination == "-":
                oci.write_stream(image, names, store, sys.stdout.buffer)
            else:
                oci.write_file(image, names, store, output.destination)


def write_text(path: str, text: str) -> None:
    """Write a small file in one piece: it is complete, or as it was before."""
    temporary = f"{path}.{os.urandom(4).hex()}.part"
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise PybuildError(f"{path} cannot be written: {os.strerror(error.errno or 0).lower()}") from error
