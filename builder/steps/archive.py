"""ADD of a local archive: its entries, put where the destination is."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from itertools import chain
from typing import BinaryIO

from builder.steps.attributes import Attributes
from builder.steps.target import Target
from layers.compress import decompressed
from layers.entry import Change, Content, Entry, Kind
from layers.errors import PybuildError
from layers.tar import read_tar


def unpacked(content: Content, destination: str, target: Target, attributes: Attributes) -> Iterator[Change] | None:
    """The archive's entries as changes below `destination`, or None if the content is no archive.

    What counts is the content, not the name: plain or compressed, the first tar header must be sound. The entries keep
    the owners of the archive unless --chown says otherwise; --chmod does not touch them, as in BuildKit.
    """
    with ExitStack() as stack:
        stream = stack.enter_context(_open(content))
        members = read_tar(decompressed(stream))
        try:
            first = next(members, None)
        except PybuildError:
            first = None
        if first is None:
            return None
        return _changes(stack.pop_all(), chain([first], members), destination, target, attributes)


def _changes(
    stack: ExitStack,
    members: Iterator[tuple[Entry, BinaryIO]],
    destination: str,
    target: Target,
    attributes: Attributes,
) -> Iterator[Change]:
    with stack:
        top = os.path.normpath("/" + destination).lstrip("/")
        yield from target.make_directories(top, attributes.directory())
        top = target.resolve(top)
        for entry, stream in members:
            inside = os.path.normpath("/" + entry.path).lstrip("/")
            folder, _, name = os.path.join(top, inside).rpartition("/") if inside else ("", "", top)
            yield from target.make_directories(folder, attributes.directory())
            folder = target.resolve(folder)
            placed = entry._replace(path=f"{folder}/{name}" if folder else name)
            if entry.kind is Kind.HARDLINK:
                linked = os.path.normpath("/" + entry.target).lstrip("/")
                placed = placed._replace(target=target.resolve(os.path.join(top, linked), follow_last=False))
            if attributes.owner is not None:
                placed = placed._replace(uid=attributes.owner[0], gid=attributes.owner[1])
            if placed.path:
                yield from target.put(placed, stream if entry.kind is Kind.FILE else None)


def _open(content: Content) -> BinaryIO:
    """The content as a stream that can be closed."""
    if isinstance(content, str):
        return open(content, "rb")
    return content if content is not None and not isinstance(content, bytes) else BytesIO(content or b"")
