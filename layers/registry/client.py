"""A registry as something to pull from: references become images, descriptors become streams of bytes.

Speaks the OCI distribution specification 1.1 (and with it Docker's Registry HTTP API V2). Every document is checked
against its digest, and handed on as the bytes that came.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

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
from layers.registry.auth import Access, Warn
from layers.registry.connection import Answer, Connection
from layers.registry.credentials import Logins
from layers.registry.document import check, check_header, kind_of
from layers.registry.errors import DroppedError, NotFoundError, RegistryError, TransientError, UnreachableError
from layers.registry.places import Endpoint
from layers.registry.reference import Reference
from layers.registry.retry import retrying
from layers.registry.settings import RegistrySettings

__all__ = ["Registry", "RegistrySettings"]

_ACCEPT = ", ".join((*sorted(INDEXES), *sorted(MANIFESTS)))
_LONGEST_MANIFEST = 4 << 20
"""Bytes; what the distribution project's registry takes at most."""
_LONGEST_CONFIG = 16 << 20
_DEEPEST_INDEX = 4
"""An index may name an index; nobody needs more of them in one another, and a circle must end."""

T = TypeVar("T")
Keep = Callable[[bytes, str], Descriptor]


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
        self._settings = settings
        self._warn = warn
        self._connection = Connection(settings)
        self._logins = Logins(settings.docker_config)
        self._origins: dict[str, str] = {}
        self._accesses: dict[tuple[str, str], Access] = {}
        self._silent: set[str] = set()
        """Hosts of mirrors that did not work."""
        self._lacking: set[tuple[Endpoint, Reference]] = set()
        """Mirrors that did not have something of a reference."""

    def resolve(self, reference: Reference, platform: Platform, keep: Keep) -> Image:
        """The image of a platform; its manifest and configuration go through `keep` as the bytes that came.

        ImageError says what there is instead: nothing, other platforms, an artifact, something broken.
        """
        try:
            return self._anywhere(reference, lambda endpoint: self._resolve(endpoint, reference, platform, keep))
        except RegistryError:
            raise
        except (ImageError, DigestError) as error:
            raise ImageError(f"{reference.familiar}: {error.message}", hint=error.hint) from error

    def open_blob(self, reference: Reference, descriptor: Descriptor) -> Answer:
        """The bytes of a blob as they come, unverified and never decompressed; to be closed by the caller."""

        def ask(endpoint: Endpoint) -> Answer:
            what = f"blob {descriptor.digest} of {endpoint}"
            return retrying(lambda: self._get(endpoint, f"blobs/{descriptor.digest}", what), pause=self.pause)

        return self._anywhere(reference, ask)

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

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
        *mirrors, upstream = self._connection.places.sources(reference)
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

    def _resolve(self, endpoint: Endpoint, reference: Reference, platform: Platform, keep: Keep) -> Image:
        """The image at one place: through indexes down to its manifest, then its configuration."""
        data, kind = self._manifest(endpoint, reference.selector, reference.digest)
        depth = 0
        while kind in INDEXES:
            depth += 1
            if depth > _DEEPEST_INDEX:
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
        if config.platform.architecture and not platform.runs(config.platform):
            raise RegistryError(f"{reference.familiar} is an image for {config.platform}; there is none for {platform}")
        keep(config_data, manifest.config.media_type)
        return Image(keep(data, kind), manifest, config)

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
        what = f"the configuration {descriptor.digest} of {endpoint}"

        def ask() -> bytes:
            with self._get(endpoint, f"blobs/{descriptor.digest}", what) as answer:
                data = answer.document(_LONGEST_CONFIG)
            check(data, descriptor.digest, what)
            return data

        return retrying(ask, pause=self.pause)

    def _get(self, endpoint: Endpoint, path: str, what: str, *, accept: str = "*/*") -> Answer:
        """GET below a repository, with the access that its registry asks for; the answer has status 200."""
        origin = self._origin(endpoint.host)
        access = self._access(endpoint, origin)
        url = f"{origin}/v2/{endpoint.repository}/{path}"
        sent = access.header
        answer = self._connection.get(url, authorization=sent, accept=accept)
        if answer.status == 401 and answer.url == url:
            renewed = access.renew(answer.headers.get("WWW-Authenticate", ""), sent)
            if renewed and renewed != sent:
                answer.close()
                answer = self._connection.get(url, authorization=renewed, accept=accept)
        if answer.status == 200:
            return answer
        with answer:
            raise _refusal(answer, what, access.trouble, endpoint.host)

    def _access(self, endpoint: Endpoint, origin: str) -> Access:
        key = (origin, endpoint.repository)
        if key not in self._accesses:
            # Two threads may both come here; setdefault lets one of the two objects win for good.
            access = Access(
                self._connection,
                host=endpoint.host,
                origin=origin,
                scope=f"repository:{endpoint.repository}:pull",
                login=lambda: self._logins.of(endpoint.host),
                warn=self._warn,
            )
            self._accesses.setdefault(key, access)
        return self._accesses[key]

    def _origin(self, host: str) -> str:
        """`https://HOST`; where plain http is allowed, whichever the registry speaks."""
        if host not in self._origins:
            *secure, last = self._connection.places.origins(host)
            self._origins[host] = next((origin for origin in secure if self._answers(origin)), last)
        return self._origins[host]

    def _answers(self, origin: str) -> bool:
        try:
            self._connection.get(f"{origin}/v2/").close()
        except (UnreachableError, DroppedError):
            return False
        return True


def _refusal(answer: Answer, what: str, trouble: str, host: str) -> RegistryError:
    """The error for an answer that is not what was asked for."""
    fault = f"{answer.host} answers {answer.fault()}"
    if answer.status in {401, 403}:
        hint = trouble or f"if it is private, store a login for {host} in Docker's config.json (docker login {host})"
        return NotFoundError(f"{what}: not found, or no access to it: {fault}", hint=hint)
    if answer.status == 404:
        hint = trouble or "check the name and the tag"
        return NotFoundError(f"{what}: not found, or no access to it: {fault}", hint=hint)
    return RegistryError(f"{what}: {fault}", hint=f"is {host} a registry?")
