"""Images out of registries: documents, what is not there, and Debian's docker-registry itself."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pulls import AMD64, ARM64, IMAGE, MANIFEST_PATH, Pull, name_of
from registries import (
    HTPASSWD,
    PASSWORD,
    USER,
    DockerRegistry,
    FakeRegistry,
    MadeImage,
    Reply,
    basic,
    make_certificate,
    make_image,
    make_index,
    push,
    stored,
    write_config,
)

from layers.digest import Digest
from layers.errors import ImageError, StoreError
from layers.oci import CONFIG, INDEX, MANIFEST, Descriptor
from layers.registry.client import RegistrySettings
from layers.registry.errors import NotFoundError, RegistryError, UnreachableError, UntrustedError
from layers.registry.reference import Reference


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry without access control that holds `team/app:1`."""
    with FakeRegistry() as registry:
        registry.add("team/app", "1", IMAGE)
        yield registry


@pytest.fixture
def pull() -> Iterator[Pull]:
    """Somebody with no settings at all."""
    with Pull() as person:
        yield person


# --- documents


def test_an_image_is_resolved_and_its_documents_are_kept_as_they_came(fake: FakeRegistry, pull: Pull) -> None:
    image = pull.resolve(name_of(fake))

    assert image.descriptor == Descriptor(MANIFEST, IMAGE.digest, len(IMAGE.document))
    assert image.config.config.env == ("A=1",)
    assert pull.stored()[IMAGE.digest] == IMAGE.document
    assert pull.stored().keys() == {IMAGE.digest, image.manifest.config.digest}


def test_an_index_gives_the_image_of_the_platform(fake: FakeRegistry, pull: Pull) -> None:
    arm = make_image({"a": b"arm"}, platform="linux/arm64")
    fake.add("team/app", "many", make_index({"linux/amd64": IMAGE, "linux/arm64": arm}))

    image = pull.resolve(f"{fake.host}/team/app:many", ARM64)

    assert image.descriptor.digest == arm.digest


def test_an_index_may_hold_an_index(fake: FakeRegistry, pull: Pull) -> None:
    inner = make_index({"linux/amd64": IMAGE})
    outer = make_index({"linux/amd64": inner})
    fake.add("team/app", "inner", inner)
    fake.add("team/app", "outer", outer)

    assert pull.resolve(f"{fake.host}/team/app:outer").descriptor.digest == IMAGE.digest


def test_a_platform_that_is_not_there_is_told_with_those_that_are(fake: FakeRegistry, pull: Pull) -> None:
    fake.add("team/app", "many", make_index({"linux/amd64": IMAGE, "windows/amd64": IMAGE}))

    with pytest.raises(ImageError) as caught:
        pull.resolve(f"{fake.host}/team/app:many", ARM64)

    assert caught.value.message == (
        f"{fake.host}/team/app:many: there is no image for linux/arm64; there are: linux/amd64, windows/amd64"
    )


def test_a_single_image_of_another_platform_is_refused(fake: FakeRegistry, pull: Pull) -> None:
    with pytest.raises(ImageError, match="is an image for linux/amd64; there is none for linux/arm64"):
        pull.resolve(name_of(fake), ARM64)

    assert pull.stored() == {}


def test_a_single_image_can_be_had_whatever_it_is_for(fake: FakeRegistry, pull: Pull) -> None:
    reference = Reference.parse(name_of(fake))

    found = pull.registry.resolve(reference, ARM64, pull.layout.put, any_single=True)

    assert (found.image.descriptor.digest, found.index) == (IMAGE.digest, None)


def test_an_index_without_the_platform_is_refused_though_any_single_image_is_taken(
    fake: FakeRegistry, pull: Pull
) -> None:
    fake.add("team/app", "index", make_index({"linux/amd64": IMAGE}))
    reference = Reference.parse(f"{fake.host}/team/app:index")

    with pytest.raises(ImageError, match="there is no image for linux/arm64"):
        pull.registry.resolve(reference, ARM64, pull.layout.put, any_single=True)


def test_a_digest_is_asked_for_and_checked(fake: FakeRegistry, pull: Pull) -> None:
    image = pull.resolve(f"{fake.host}/team/app:other@{IMAGE.digest}")

    assert image.descriptor.digest == IMAGE.digest
    assert fake.paths("manifests") == [f"/v2/team/app/manifests/{IMAGE.digest}"]


def test_both_kinds_of_manifests_and_indexes_are_asked_for(fake: FakeRegistry, pull: Pull) -> None:
    pull.resolve(name_of(fake))

    accept = next(asked.headers["accept"] for asked in fake.asked if "manifests" in asked.path)
    assert {MANIFEST, INDEX, "application/vnd.docker.distribution.manifest.v2+json"} < set(accept.split(", "))
    assert "application/vnd.docker.distribution.manifest.list.v2+json" in accept


@pytest.mark.parametrize("content_type", ["application/json", "text/plain; charset=utf-8", "", MANIFEST.upper()])
def test_the_document_itself_says_what_it_is(fake: FakeRegistry, pull: Pull, content_type: str) -> None:
    fake.replies[MANIFEST_PATH] = Reply(headers={"Content-Type": content_type}, body=IMAGE.document)

    assert pull.resolve(name_of(fake)).descriptor.media_type == MANIFEST


def document(**fields: object) -> bytes:
    """IMAGE's manifest with other fields."""
    return json.dumps({**json.loads(IMAGE.document), **fields}).encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is not a manifest"),
        (b"<html>welcome</html>", "is not a manifest"),
        (b"\xff\xfe", "is not a manifest"),
        (b"[" * 99_999, "is not a manifest"),
        (b"[]", "is not a manifest"),
        (b"null", "is not a manifest"),
        (b"{}", "not of an image that pybuild can read"),
        (document(mediaType=["x"]), "is not a manifest"),
        (document(schemaVersion=1), "manifest of schema 1"),
        (document(manifests=[]), "as a manifest and as an index"),
        (document(mediaType=INDEX), "is of another form"),
        (document(config=None), "descriptor"),
        (document(config={"mediaType": CONFIG, "digest": "sha256:../..", "size": 1}), "is not a digest"),
        (document(layers="x"), "layers are no list"),
        (document(layers=[]), "names 0 layers"),
        (json.dumps({"schemaVersion": 2, "manifests": [1]}).encode(), "descriptor"),
        (json.dumps({"schemaVersion": 2, "manifests": []}).encode(), "there is no image for linux/amd64"),
    ],
)
def test_an_odd_manifest_is_one_clear_error(fake: FakeRegistry, pull: Pull, body: bytes, words: str) -> None:
    fake.replies[MANIFEST_PATH] = Reply(body=body)

    with pytest.raises(ImageError, match=words) as caught:
        pull.resolve(name_of(fake))

    assert "team/app" in caught.value.message


def test_a_signed_manifest_of_schema_1_is_refused(fake: FakeRegistry, pull: Pull) -> None:
    headers = {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}
    fake.replies[MANIFEST_PATH] = Reply(headers=headers, body=b'{"name": "team/app"}')

    with pytest.raises(RegistryError, match="schema 1"):
        pull.resolve(name_of(fake))


@pytest.mark.parametrize(
    "config_type", ["application/vnd.cncf.helm.config.v1+json", "application/vnd.oci.empty.v1+json"]
)
def test_an_artifact_is_no_image(fake: FakeRegistry, pull: Pull, config_type: str) -> None:
    fake.add("team/app", "chart", make_image({"a": b"b"}, config_type=config_type))

    with pytest.raises(
        RegistryError, match=f"is not an image, but an artifact of type {config_type}".replace("+", ".")
    ):
        pull.resolve(f"{fake.host}/team/app:chart")


def test_a_manifest_of_another_digest_is_refused(fake: FakeRegistry, pull: Pull) -> None:
    fake.replies[f"/v2/team/app/manifests/{IMAGE.digest}"] = Reply(body=document(annotations={}))

    with pytest.raises(RegistryError, match=f"sends wrong bytes, of digest .* instead of {IMAGE.digest}"):
        pull.resolve(f"{fake.host}/team/app@{IMAGE.digest}")


def test_a_manifest_that_is_not_what_its_header_says_is_refused(fake: FakeRegistry, pull: Pull) -> None:
    headers = {"Docker-Content-Digest": str(Digest.of(b"other"))}
    fake.replies[MANIFEST_PATH] = Reply(headers=headers, body=IMAGE.document)

    with pytest.raises(RegistryError, match="sends wrong bytes"):
        pull.resolve(name_of(fake))


def test_a_configuration_of_another_digest_is_refused(fake: FakeRegistry, pull: Pull) -> None:
    config = json.loads(IMAGE.document)["config"]["digest"]
    fake.replies[f"/v2/team/app/blobs/{config}"] = Reply(body=b"{}")

    with pytest.raises(RegistryError, match=r"the configuration .* sends wrong bytes"):
        pull.resolve(name_of(fake))

    assert pull.stored() == {}


def test_a_document_without_end_is_given_up(fake: FakeRegistry, pull: Pull) -> None:
    fake.replies[MANIFEST_PATH] = Reply(body=b" " * (5 << 20))

    with pytest.raises(RegistryError, match="more than 4 MiB"):
        pull.resolve(name_of(fake))


def test_a_full_disk_is_no_error_of_the_image(fake: FakeRegistry, pull: Pull) -> None:
    def keep(data: bytes, media_type: str) -> Descriptor:
        raise StoreError("no space left")

    with pytest.raises(StoreError):
        pull.registry.resolve(Reference.parse(name_of(fake)), AMD64, keep)


# --- what is not there


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_is_missing_may_be_hidden(fake: FakeRegistry, pull: Pull, status: int) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "requested\naccess"}]}).encode()
    fake.replies[MANIFEST_PATH] = Reply(status, body=body)

    with pytest.raises(NotFoundError) as caught:
        pull.resolve(name_of(fake))

    assert caught.value.message == (
        f"{name_of(fake)}: not found, or no access to it: {fake.host} answers {status} (DENIED: requested access)"
    )
    assert caught.value.hint


def test_a_server_that_is_no_registry_is_told(fake: FakeRegistry, pull: Pull) -> None:
    fake.replies[MANIFEST_PATH] = Reply(418, body=b"<html>")

    with pytest.raises(RegistryError, match="answers 418") as caught:
        pull.resolve(name_of(fake))

    assert "is 127.0.0.1" in caught.value.hint


def test_an_unreachable_host_is_told_at_once(pull: Pull) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9 does not answer: connection refused"):
        pull.resolve("127.0.0.1:9/team/app")

    assert pull.pauses == []


def test_an_unknown_host_is_told_at_once(pull: Pull) -> None:
    with pytest.raises(UnreachableError, match=r"no-such-registry\.invalid does not answer"):
        pull.resolve("no-such-registry.invalid/team/app")

    assert pull.pauses == []


def test_something_that_does_not_speak_http_is_told(pull: Pull) -> None:
    with silly_server(b"SSH-2.0-OpenSSH_9.2\r\n") as host, pytest.raises(RegistryError, match=host):
        pull.resolve(f"{host}/team/app")


def test_headers_without_end_are_one_clear_error(pull: Pull) -> None:
    with silly_server(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000) as host, pytest.raises(RegistryError, match=host):
        pull.resolve(f"{host}/team/app")


@contextmanager
def silly_server(words: bytes) -> Iterator[str]:
    """Says the same to everybody, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer = listener.accept()[0]
                except OSError:
                    return
                with peer:
                    try:
                        peer.recv(1000)
                        peer.sendall(words)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


# --- the real registry


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """docker-registry with Basic access; `team/app:1` is there for two platforms."""
    with DockerRegistry(tmp_path_factory.mktemp("registry"), htpasswd=HTPASSWD) as registry:
        arm = make_image({"arm": b"arm"}, platform="linux/arm64")
        index = make_index({"linux/amd64": IMAGE, "linux/arm64": arm})
        push(registry.host, "team/app", "1", index, authorization=basic(USER, PASSWORD))
        yield registry


@pytest.fixture
def member(real: DockerRegistry, tmp_path: Path) -> Iterator[Pull]:
    """Somebody whose login the real registry accepts."""
    folder = write_config(tmp_path / "docker", auths={real.host: stored()})
    with Pull(RegistrySettings(docker_config=folder)) as person:
        yield person


@pytest.mark.kernel
def test_docker_registry_gives_an_image(real: DockerRegistry, member: Pull) -> None:
    image = member.resolve(name_of(real))
    member.fetch(name_of(real), image.manifest.layers)

    assert image.descriptor.digest == IMAGE.digest
    (index,) = member.stored().keys() - {*IMAGE.blobs, IMAGE.digest}
    assert b"linux" in member.stored()[index]


@pytest.mark.kernel
def test_docker_registry_refuses_strangers(real: DockerRegistry, pull: Pull) -> None:
    with pytest.raises(NotFoundError, match="not found, or no access") as caught:
        pull.resolve(name_of(real))

    assert f"pybuild login {real.host}" in caught.value.hint


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["team/app:2", "team/none:1"])
def test_docker_registry_does_not_know_everything(real: DockerRegistry, member: Pull, name: str) -> None:
    with pytest.raises(NotFoundError, match=f"{name}: not found"):
        member.resolve(f"{real.host}/{name}")


@pytest.mark.kernel
def test_what_skopeo_pushed_is_pulled(real: DockerRegistry, member: Pull, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", IMAGE)
    command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}"]
    subprocess.run([*command, f"oci:{layout}:app", f"docker://{real.host}/pushed:by-skopeo"], check=True)

    image = member.resolve(f"{real.host}/pushed:by-skopeo")
    member.fetch(f"{real.host}/pushed:by-skopeo", image.manifest.layers)

    assert image.descriptor.digest == IMAGE.digest
    assert {*IMAGE.blobs, IMAGE.digest} == member.stored().keys()


@pytest.mark.kernel
def test_a_corrupted_blob_in_docker_registry_is_found(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "registry") as registry, Pull() as pull:
        push(registry.host, "team/app", "1", IMAGE)
        digest = IMAGE.layers[1].digest
        (data,) = (tmp_path / "registry/data").rglob(f"{digest.hex}/data")
        data.write_bytes(b"x" * IMAGE.layers[1].size)

        with pytest.raises(RegistryError, match="wrong bytes came"):
            pull.fetch(name_of(registry))

        assert digest not in pull.stored()


@pytest.mark.kernel
def test_docker_registry_with_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with DockerRegistry(tmp_path / "registry", certificate=certificate) as registry:
        with Pull(RegistrySettings(insecure=frozenset({registry.host}))) as pull, pytest.raises(NotFoundError):
            pull.resolve(name_of(registry))
        with Pull() as pull, pytest.raises(UntrustedError):
            pull.resolve(name_of(registry))


def write_layout(folder: Path, image: MadeImage) -> Path:
    """An OCI layout that holds the image under the name `app`."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    for digest, blob in {**image.blobs, image.digest: image.document}.items():
        (blobs / digest.hex).write_bytes(blob)
    named = Descriptor(
        MANIFEST, image.digest, len(image.document), annotations={"org.opencontainers.image.ref.name": "app"}
    )
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named.to_json()]}))
    return folder
