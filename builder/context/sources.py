"""Where a build's files come from: the Dockerfile, the build context, and the contexts with a name."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from builder.arguments import KEEP_GIT_DIR
from builder.context.ignore import FILE_NAME, IgnoreFile, find_ignore_file, ignore_files
from builder.context.local import LocalTree
from builder.context.named import Folder, ImageContext, LayoutContext, NamedContexts, Url, context_source
from builder.context.once import Once
from builder.context.places import Place, Places
from builder.context.remote import Remotes
from builder.dockerfile.reader import Source, read
from builder.errors import ContextError, DockerfileError, UsageError
from builder.options import BuildOptions
from cache.receipts import Receipt
from cache.store import Store
from layers.entry import Kind

Seen = TypeVar("Seen")

STDIN = "-"
NAME = "Dockerfile"
"""What a Dockerfile is called if nobody says otherwise."""


class Contexts:
    """Opens the folders that COPY and ADD read; each opening sees one as it is then, and remembers digests of files.

    A context that is no folder is fetched or unpacked at the first question, and once.
    """

    def __init__(self, options: BuildOptions, named: NamedContexts, store: Store, remotes: Remotes) -> None:
        """UsageError if standard input is asked to be two things."""
        if options.context == options.dockerfile == STDIN:
            raise UsageError(
                "standard input cannot be both the context and the Dockerfile", hint="name one of them as a file"
            )
        self._options = options
        self._named = named
        self._store = store
        self._remotes = remotes
        keep = options.build_args.get(KEEP_GIT_DIR, "").lower() in {"1", "t", "true"}
        self._places = Places(store, remotes, keep_git_dir=keep)
        self._found: Once[Place] = Once()
        self._opened: list[LocalTree] = []
        self._read: dict[str, bytes | None] = {}
        self._links: dict[str, str] = {}
        self._once = False
        """Whether something was read that cannot be looked at again, or not as it was."""
        self._looked: LocalTree | None = None

    def dockerfile(self) -> Source:
        """The Dockerfile that the options name, read into statements; DockerfileError if it is not there."""
        given = self._options.dockerfile
        self._once |= given == STDIN or "://" in given
        if given == STDIN:
            return self._source(sys.stdin.buffer.read(), NAME)
        if "://" in given and isinstance(source := context_source(given), Url):
            return self._source(_content(self._remotes.path(self._remotes.file(source.url))), NAME)
        place = self._place("")
        if place.is_lasting:
            # -f is relative to the current folder, as for docker.
            usual = given or os.path.join(place.folder, NAME)
            path = _spelt(usual, os.path.exists)
            data = _content(path)
            self._note_read(usual, None if usual != path else data)
            self._note_read(path, data)
            return self._source(data, os.path.basename(path))
        if place.file:
            if given:
                raise UsageError(f"the context is a Dockerfile, and -f {given} names another one")
            return self._source(_content(place.file), NAME)
        path = self._spelt_inside(place, given or NAME)
        inside = self._inside(place, path)
        if inside is None:
            raise DockerfileError(f"the context has no {path}", hint="-f FILE names another file in it")
        return self._source(inside, os.path.basename(path))

    def _source(self, data: bytes, name: str) -> Source:
        return read(data, name, self._store.records)

    def is_ignored(self, path: str) -> bool:
        """Whether the ignore file leaves out a path of the build context, and all below it; False without a context."""
        if self._looked is None:
            try:
                self._looked = self.open()
            except ContextError:
                return False
        return self._looked.is_ignored(path)

    def open(self, name: str = "") -> LocalTree:
        """A fresh look at the build context, or at that of a name; ContextError if it is not there."""
        place = self._place(name)
        tree = LocalTree(place.folder, self._store.files, self._ignore_file(place, name))
        if place.is_lasting:
            self._opened.append(tree)
            self._links[place.folder] = tree.root
        return tree

    def save(self) -> None:
        """Keep what was found out about files, for the next look or the next build."""
        for tree in self._opened:
            tree.save()

    def seen(self) -> Receipt | None:
        """All that was read and looked at; None if some of it cannot be looked at again, or changed meanwhile."""
        receipt = Receipt({}, dict(self._links), dict(self._read), {}, {}, {})
        for tree in self._opened:
            folders, places = tree.seen()
            if not (_agrees(folders, receipt.folders) and _agrees(places, receipt.places)):
                return None
        return None if self._once else receipt

    def _note_read(self, path: str, data: bytes | None) -> None:
        self._once |= not _agrees({path: data}, self._read)

    def _place(self, name: str) -> Place:
        place = self._found.get(name, lambda: self._find(name))
        self._once |= not place.is_lasting
        return place

    def _find(self, name: str) -> Place:
        if name:
            source = self._named.find(name)
            assert source is not None, "only names that are given get here"
        elif self._options.context == STDIN:
            return self._places.of_stream(sys.stdin.buffer)
        else:
            source = context_source(self._options.context)
        if isinstance(source, ImageContext | LayoutContext):
            raise UsageError(f"{self._options.context} is an image, and no build context")
        return self._places.of_source(source)

    def _ignore_file(self, place: Place, name: str) -> IgnoreFile | None:
        """The rules of a context: `.dockerignore` in it, or for the build context the one beside the Dockerfile."""
        dockerfile = "" if name else self._options.dockerfile or NAME
        is_file = bool(dockerfile) and dockerfile != STDIN and isinstance(context_source(dockerfile), Folder)
        if place.is_lasting:
            path = _spelt(self._options.dockerfile or os.path.join(place.folder, dockerfile), os.path.exists)
            file = find_ignore_file(place.folder, path if is_file else None)
            for candidate in ignore_files(place.folder, path if is_file else None):
                found = file is not None and file.path == candidate
                self._note_read(candidate, file.data if file and found else None)
                if found:
                    break
            return file
        for path in (self._spelt_inside(place, dockerfile) + FILE_NAME, FILE_NAME) if is_file else (FILE_NAME,):
            data = self._inside(place, path)
            if data is not None:
                return IgnoreFile(os.path.basename(path), data)
        return None

    def _spelt_inside(self, place: Place, path: str) -> str:
        return _spelt(path, lambda path: self._inside(place, path) is not None)

    def _inside(self, place: Place, path: str) -> bytes | None:
        """A file of a context that is not the person's own: no link in it leads out of it."""
        tree = LocalTree(place.folder, self._store.files)
        entry = tree.lookup(tree.resolve(path))
        if entry is None or entry.kind is not Kind.FILE:
            return None
        content = tree.content(entry)
        return content if isinstance(content, bytes) else _content(content)


def _agrees(new: dict[str, Seen], known: dict[str, Seen]) -> bool:
    """Add what was seen to what is known; False if they contradict each other."""
    agrees = all(known.get(path, seen) == seen for path, seen in new.items())
    known |= new
    return agrees


def _spelt(path: str, exists: Callable[[str], bool]) -> str:
    """The path, or that in small letters where a Dockerfile of the usual name is only there by `dockerfile`.

    As docker does (buildx, build/build.go, handleLowercaseDockerfile).
    """
    folder, name = os.path.split(path)
    small = os.path.join(folder, name.lower())
    return small if name == NAME and not exists(path) and exists(small) else path


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DockerfileError(
            f"the Dockerfile {path} cannot be read: {error.strerror}", hint="-f FILE names another one"
        ) from error
