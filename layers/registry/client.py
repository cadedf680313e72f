"""Registries as something to pull from: references become images, descriptors become streams of bytes.

Speaks the OCI distribution specification 1.1 (and with it Docker's Registry HTTP API V2). Every document is checked
against its digest, and handed on as the bytes that came.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from layers.data import dataclass
from layers.digest import Digest, DigestError
from layers.errors import ImageError
from layers.oci import (
    CONFIG,
    DOCKER_CONFIG,
    INDEXES,
    MANIFESTS,
    Descriptor,
    Image,
    ImageConfig,
    Index,
    Manifest,
    Platform,
)
from layers.registry.answer import Answer
from layers.registry.auth import Warn
from layers.registry.dialogue import Dialogue
from layers.registry.document import check, check_header, kind_of
from layers.registry.errors import NotFoundError, RegistryError, TransientError, UnreachableError, WrongBytesError
from layers.registry.pace import Pace
from layers.registry.places import Endpoint
from layers.registry.reference import Reference
from layers.registry.retry import retrying
from layers.registry.settings import RegistrySettings

__all__ = ["Registry", "RegistrySettings"]

_ACCEPT = ", ".join((*sorted(INDEXES), *sorted(MANIFESTS)))
_LONGEST_MANIFEST = 4 << 20
"""Bytes; what the distribution project's registry takes at most."""
_LONGEST_DOCUMENT = 16 << 20
_DEEPEST_INDEX = 4
"""An index may name an index; nobody needs more of them in one another, and a circle must end."""

T = TypeVar("T")
Keep = Callable[[bytes, str], Descriptor]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference means for a platform."""

    image: Image
    index: Descriptor | None
    """What the reference itself names, if the image was chosen from an index."""


class Registry:
    """All registries of one run; threads may share it. Remembers tokens, and which mirrors are of use."""

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        warn: Warn = lambda _: None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.pause = pause
        """How a thread waits between two tries."""
        self._warn = warn
        self.dialogue = Dialogue(settings, warn)
        """What is said to registries; pushing goes through it too."""
        self._paces: dict[str, Pace] = {}
        self._silent: set[str] = set()
        """Hosts of mirrors that did not work."""
        self._lacking: set[tuple[Endpoint, Reference]] = set()
        """Mirrors that did not have something of a reference."""

    def resolve(self, reference: Reference, platform: Platform, keep: Keep, *, any_single: bool = False) -> Resolved:
        """The image of a platform; its documents, indexes included, go through `keep` as the bytes that came.

        `any_single` takes an image that stands in no index whatever it is for. ImageError says what there is instead:
        nothing, other platforms, an artifact, something broken.
        """

        def ask(endpoint: Endpoint) -> Resolved:
            return self._resolve(endpoint, reference, platform, keep, any_single=any_single)

        try:
            return self._anywhere(reference, ask)
        except RegistryError:
            raise
        except (ImageError, DigestError) as error:
            raise ImageError(f"{reference.familiar}: {error.message}", hint=error.hint) from error

    def open_blob(self, reference: Reference, descriptor: Descriptor, start: int = 0) -> Answer:
        """The bytes of a blob as they come, unverified and never decompressed; to be closed by the caller.

        `start` asks for what follows the first bytes. A registry may not know how, and send all: then the status of the
        answer is 200, and not 206.
        """

        def ask(endpoint: Endpoint) -> Answer:
            what = f"blob {descriptor.digest} of {endpoint}"
            return retrying(
                lambda: self._get(endpoint, f"blobs/{descriptor.digest}", what, start=start), pause=self.pause
            )

        return self._anywhere(reference, ask)

    def manifest(self, reference: Reference) -> tuple[bytes, str]:
        """A manifest or index as it came, whatever it is of, and its media type."""
        return self._anywhere(reference, lambda at: self._manifest(at, reference.selector, reference.digest))

    def document(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """A whole blob of some megabytes at most, verified."""
        return self._anywhere(reference, lambda at: self._document(at, descriptor, f"{descriptor.digest} of {at}"))

    def has_blob(self, reference: Reference, descriptor: Descriptor) -> bool:
        """Whether a repository says that it has a blob of this digest and size."""

        def ask(endpoint: Endpoint) -> bool:
            path = f"blobs/{descriptor.digest}"
            with self.dialogue.ask(endpoint, "HEAD", path) as answer:
                if answer.status == 404:
                    raise NotFoundError(f"{endpoint} has no {descriptor.digest}")
                return answer.status == 200 and answer.headers.get("Content-Length") in {None, str(descriptor.size)}

        try:
            return self._anywhere(reference, lambda at: retrying(lambda: ask(at), pause=self.pause))
        except NotFoundError:
            return False

    def pace_of(self, host: str) -> Pace:
        """What is known of how a registry takes blobs."""
        return self._paces.setdefault(host, Pace())

    def close(self) -> None:
        """Close all connections."""
        self.dialogue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _anywhere(self, reference: Reference, ask: Callable[[Endpoint], T]) -> T:
        """What the first mirror that has it gives, or else the registry itself.

        What is wrong, in contrast to missing, ends the search: nobody should get it from elsewhere without a word.
        """
        *mirrors, upstream = self.dialogue.places.sources(reference)
        said = ""
        for mirror in mirrors:
            if mirror.host in self._silent or (mirror, reference) in self._lacking:
                continue
            try:
                return ask(mirror)
            except NotFoundError as error:
                self._lacking.add((mirror, reference))
                said = error.message
            except (UnreachableError, TransientError) as error:
                self._silent.add(mirror.host)
                self._warn(f"{error.message}; asking {upstream.host} itself")
        try:
            return ask(upstream)
        except RegistryError as error:
            if said:
                error.hint = f"the mirror does not have it either: {said}"
            raise

    def _resolve(
        self, endpoint: Endpoint, reference: Reference, platform: Platform, keep: Keep, *, any_single: bool
    ) -> Resolved:
        """The image at one place: through indexes down to its manifest, then its configuration."""
        data, kind = self._manifest(endpoint, reference.selector, reference.digest)
        indexes = []
        while kind in INDEXES:
            indexes.append((data, kind))
            if len(indexes) > _DEEPEST_INDEX:
                raise RegistryError(f"{endpoint}: its indexes name one another without end")
            chosen = Index.parse(data).choose(platform)
            data, kind = self._manifest(endpoint, chosen.digest, chosen.digest)
        manifest = Manifest.parse(data)
        if manifest.config.media_type not in {CONFIG, DOCKER_CONFIG}:
            raise RegistryError(
                f"{reference.familiar} is not an image, but an artifact of type {manifest.config.media_type[:100]}"
            )
        config_data = self._config(endpoint, manifest.config)
        config = ImageConfig.parse(config_data)
        fits = not config.platform.architecture or platform.runs(config.platform)
        if not fits and (indexes or not any_single):
            raise RegistryError(f"{reference.familiar} is an image for {config.platform}; there is none for {platform}")
        keep(config_data, manifest.config.media_type)
        image = Image(keep(data, kind), manifest, config)
        kept = [keep(*index) for index in indexes]
        return Resolved(image, kept[0] if kept else None)

    def _manifest(self, endpoint: Endpoint, selector: str, digest: Digest | None) -> tuple[bytes, str]:
        """A manifest or index as it came, and its media type."""
        what = f"{endpoint}{'@' if digest else ':'}{selector}"

        def ask() -> tuple[bytes, str]:
            with self._get(endpoint, f"manifests/{selector}", what, accept=_ACCEPT) as answer:
                data = answer.document(_LONGEST_MANIFEST)
            if digest:
                check(data, digest, what)
            else:
                check_header(data, answer.headers.get("Docker-Content-Digest", ""), what)
            return data, kind_of(data, answer.headers.get("Content-Type", ""), what)

        return retrying(ask, pause=self.pause)

    def _config(self, endpoint: Endpoint, descriptor: Descriptor) -> bytes:
        return self._document(endpoint, descriptor, f"the configuration {descriptor.digest} of {endpoint}")

    def _document(self, endpoint: Endpoint, descriptor: Descriptor, what: str) -> bytes:
        def ask() -> bytes:
            with self._get(endpoint, f"blobs/{descriptor.digest}", what) as answer:
                data = answer.document(_LONGEST_DOCUMENT)
            check(data, descriptor.digest, what)
            return data

        return retrying(ask, pause=self.pause)

    def _get(self, endpoint: Endpoint, path: str, what: str, *, accept: str = "*/*", start: int = 0) -> Answer:
        """GET below a repository; the answer has status 200, or 206 for a part."""
        part = {"Range": f"bytes={start}-"} if start else {}
        answer = self.dialogue.ask(endpoint, "GET", path, headers={"Accept": accept, **part})
        if answer.status == 200 or (start and answer.status == 206):
            return answer
        with answer:
            if start and answer.status == 416:
                raise WrongBytesError(f"{what}: {answer.host} says that it has no more than {start} bytes")
            raise self.dialogue.refusal(answer, endpoint, what)
