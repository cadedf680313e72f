"""A cache in a bucket of S3, or of what speaks like it (`type=s3`). This is the door of boto3, which is an extra.

The layout is BuildKit's: blobs under `blobs/`, documents under `manifests/`. Objects can be replaced by anybody at any
time, as tags of a registry can: so each fact has a document of its own here too (see `cache.shared.registry`).
"""

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from cache.shared.shelf import Inspect, Obtain, Progress
from layers.errors import ImageError
from layers.layout import Layout
from layers.oci import Descriptor
from layers.registry.parallel import TRANSFERS, Stop, each

try:
    import boto3
    from boto3.exceptions import Boto3Error
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError as error:
    raise ImageError(
        "type=s3 needs boto3, which is not installed", hint="install pybuild[s3], or boto3 beside it"
    ) from error

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ = 1 << 18
_ATTEMPTS = 5
_ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
_TRUE = frozenset({"true", "1"})

T = TypeVar("T")


class BucketShelf:
    """The cache under one name in a bucket."""

    home: tuple[str, str] | None = None
    by_platform = False

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Keys as `docker buildx build` has them; logins that are not among them are looked for as boto3 does."""
        self._bucket = settings["bucket"]
        prefix = settings.get("prefix", "")
        self._blobs = prefix + settings.get("blobs_prefix", "blobs/")
        self._documents = prefix + settings.get("manifests_prefix", "manifests/")
        self._name = settings.get("name", "buildkit")
        self._parallel = int(settings.get("upload_parallelism", TRANSFERS))
        self.title = f"s3://{self._bucket}/{self._documents}{self._name}"
        style = "path" if settings.get("use_path_style") in _TRUE else "auto"
        with self._explained():
            self._client: Any = boto3.client(
                "s3",
                region_name=settings.get("region"),
                endpoint_url=settings.get("endpoint_url"),
                aws_access_key_id=settings.get("access_key_id"),
                aws_secret_access_key=settings.get("secret_access_key"),
                aws_session_token=settings.get("session_token"),
                config=Config(s3={"addressing_style": style}, retries={"mode": "standard", "max_attempts": _ATTEMPTS}),
            )

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        yield False

    def read(self, name: str) -> bytes | None:
        answer = self._ask(lambda: self._client.get_object(Bucket=self._bucket, Key=self._key(name)))
        if answer is None:
            return None
        with self._explained():
            data: bytes = answer["Body"].read()
        return data

    def write(self, name: str, data: bytes, blobs: Sequence[Descriptor]) -> None:  # noqa: ARG002 - no object keeps others
        self._ask(lambda: self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=data))

    def lacking(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        lacking: list[Descriptor] = []

        def look(blob: Descriptor, _: Stop) -> None:
            head = self._ask(lambda: self._client.head_object(Bucket=self._bucket, Key=self._blob(blob)))
            if head is None or head["ContentLength"] != blob.size:
                lacking.append(blob)

        each(look, blobs, parallel=TRANSFERS, pause=time.sleep, name="look")
        return lacking

    def fetch(self, blobs: Sequence[Descriptor], layout: Layout, inspect: Inspect, progress: Progress) -> None:
        def bring(blob: Descriptor, stop: Stop) -> None:
            if layout.has(blob):
                return
            with layout.writer() as writer:

                def arrived(data: bytes, done: int) -> None:
                    stop.check()
                    writer.write(data)
                    progress(blob, done)

                stream = _Coming(lambda start: self._open(blob, start), blob, arrived, stop.pause)
                with io.BufferedReader(stream, _READ) as buffered:
                    inspect(blob, buffered)
                    while buffered.read(_READ):
                        pass
                writer.commit(blob)

        each(bring, blobs, parallel=TRANSFERS, pause=time.sleep, name="fetch")

    def put(self, blobs: Sequence[Descriptor], layout: Layout, obtain: Obtain, progress: Progress) -> None:
        def send(blob: Descriptor, stop: Stop) -> None:
            if not layout.has(blob):
                obtain(blob)
            done, lock = 0, threading.Lock()  # parts of one blob are sent by several threads

            def sent(size: int) -> None:
                nonlocal done
                stop.check()
                with lock:
                    done += size
                    progress(blob, done)

            path = layout.path(blob.digest)
            transfer = TransferConfig(max_concurrency=2)
            self._ask(lambda: self._client.upload_file(path, self._bucket, self._blob(blob), None, sent, transfer))

        each(send, self.lacking(blobs), parallel=self._parallel, pause=time.sleep, name="push")

    def close(self) -> None:
        self._client.close()

    def _open(self, blob: Descriptor, start: int) -> Any:  # noqa: ANN401 - boto3 has no types
        part = {"Range": f"bytes={start}-"} if start else {}
        answer = self._ask(lambda: self._client.get_object(Bucket=self._bucket, Key=self._blob(blob), **part))
        if answer is None:
            raise ImageError(f"{self.title} has no {blob.digest}")
        return answer["Body"]

    def _ask(self, ask: Callable[[], T]) -> T | None:
        """What a request gives; None for what is not there."""
        with self._explained():
            try:
                return ask()
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _ABSENT:
                    return None
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, Boto3Error) as error:
            raise ImageError(
                f"{self.title}: {error}", hint="see docs/registries.md for the keys, and AWS's documentation for logins"
            ) from error

    def _key(self, name: str) -> str:
        return f"{self._documents}{self._name}{'.' if name else ''}{name}"

    def _blob(self, blob: Descriptor) -> str:
        return self._blobs + blob.digest


class _Coming(io.RawIOBase):
    """A blob as it comes; where a connection breaks, the next one goes on."""

    def __init__(
        self,
        connect: Callable[[int], Any],
        blob: Descriptor,
        arrived: Callable[[bytes, int], None],
        pause: Callable[[float], object],
    ) -> None:
        super().__init__()
        self._connect = connect
        self._blob = blob
        self._arrived = arrived
        self._pause = pause
        self._body: Any = None
        self._done = 0
        self._failed = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        data = self._next(len(view)) if self._done < self._blob.size else b""
        view[: len(data)] = data
        if data:
            self._done += len(data)
            self._failed = 0
            self._arrived(data, self._done)
        return len(data)

    def _next(self, size: int) -> bytes:
        while True:
            try:
                self._body = self._body or self._connect(self._done)
                data: bytes = self._body.read(size)
            except (BotoCoreError, OSError) as error:
                reason: object = error
            else:
                if data:
                    return data
                reason = "it ends too early"
            self._body = None
            self._failed += 1
            if self._failed == _ATTEMPTS:
                raise ImageError(
                    f"{self._blob.digest} broke off after {self._done} of {self._blob.size} bytes: {reason}"
                )
            self._pause(0.2 * 2**self._failed)
