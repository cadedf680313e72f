"""The commands against registries as people run them: plain, with passwords, tokens, TLS, and of another maker."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from registries import HTPASSWD, PASSWORD, USER, DockerRegistry, basic, free_port, tar_of_files, write_config
from tokens import Authority, TokenServer

from builder.cli.main import main
from builder.cli.world import World
from cache.store import Store
from layers.digest import Digest
from layers.oci import CONFIG, LAYER, MANIFEST, Descriptor, Manifest, Platform
from layers.registry.connection import Connection
from layers.registry.pace import LARGEST
from layers.registry.settings import RegistrySettings

pytestmark = pytest.mark.kernel


class Machine:
    """A machine with a home and a store, on which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "PYBUILD_ROOT": str(folder / "root")}
        self.shown = ""

    def run(self, *arguments: str) -> str:
        """What a command prints; it must go well."""
        out, err = io.StringIO(), io.StringIO()
        status = main(arguments, World(self.environment, out, err))
        self.shown += out.getvalue() + err.getvalue()
        assert status == 0, err.getvalue()
        return out.getvalue()

    def fails(self, *arguments: str) -> str:
        """What a command says that must not go well."""
        out, err = io.StringIO(), io.StringIO()
        assert main(arguments, World(self.environment, out, err)) == 6
        return err.getvalue()

    def make(self, name: str, *sizes: int) -> Descriptor:
        """An image in the store, with a layer of random bytes for each size."""
        with contextlib.closing(Store(self.environment["PYBUILD_ROOT"])) as store:
            tars = [tar_of_files({f"file{place}": os.urandom(size)}) for place, size in enumerate(sizes)]
            layers = tuple(store.layout.put(tar, LAYER) for tar in tars)
            platform = Platform.host()
            document = {
                "os": platform.os,
                "architecture": platform.architecture,
                "rootfs": {"type": "layers", "diff_ids": [Digest.of(tar) for tar in tars]},
            }
            config = store.layout.put(json.dumps(document).encode(), CONFIG)
            image = store.layout.put(Manifest(config, layers).serialise(), MANIFEST)
            store.layout.tag(name, image)
            return image


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """The machine that pushes."""
    return Machine(tmp_path / "here")


@pytest.fixture
def other(tmp_path: Path) -> Machine:
    """The machine that pulls."""
    return Machine(tmp_path / "there")


def there_and_back(machine: Machine, other: Machine, host: str) -> None:
    """An image with a layer of several pieces goes to the registry and comes back as it was."""
    image = machine.make(f"{host}/team/app:1", LARGEST + 100_000, 1000)

    pushed = machine.run("push", f"{host}/team/app:1", f"{host}/team/app:1", f"{host}/team/app:2")
    pulled = other.run("pull", f"{host}/team/app:2")

    assert pushed == f"{host}/team/app:1@{image.digest}\n{host}/team/app:2@{image.digest}\n"
    assert pulled == f"{host}/team/app:2@{image.digest}\n"
    with contextlib.closing(Store(other.environment["PYBUILD_ROOT"])) as store:
        manifest = Manifest.parse(store.layout.read(image))
        for layer in manifest.layers:
            with store.layout.open(layer) as blob:
                while blob.read(1 << 20):
                    pass


def log_in(machine: Machine, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(PASSWORD))
    machine.run("login", "-u", USER, "--password-stdin", host)


def test_a_plain_registry(machine: Machine, other: Machine, tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "registry") as real:
        there_and_back(machine, other, real.host)


def test_a_registry_with_passwords(
    machine: Machine, other: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DockerRegistry(tmp_path / "registry", htpasswd=HTPASSWD) as real:
        machine.make(f"{real.host}/team/app:1", 10)
        refused = machine.fails("push", f"{real.host}/team/app:1")
        log_in(machine, real.host, monkeypatch)
        log_in(other, real.host, monkeypatch)
        there_and_back(machine, other, real.host)

    assert f"pybuild login {real.host}" in refused
    assert PASSWORD not in machine.shown + other.shown


def test_a_registry_with_tokens(
    machine: Machine, other: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TokenServer(tmp_path / "tokens") as tokens, DockerRegistry(tmp_path / "registry", tokens=tokens) as real:
        log_in(machine, real.host, monkeypatch)
        log_in(other, real.host, monkeypatch)
        there_and_back(machine, other, real.host)

    scopes = [question.get("scope") for question in tokens.asked]
    assert scopes == [None, None, ["repository:team/app:pull,push"], ["repository:team/app:pull"]]


def test_tokens_that_end_during_a_push(machine: Machine, tmp_path: Path) -> None:
    """A token of a second holds for a part of it only; each that ends is renewed before a piece is sent in vain."""
    with TokenServer(tmp_path / "tokens") as tokens, DockerRegistry(tmp_path / "registry", tokens=tokens) as real:
        tokens.lifetime = 1
        machine.environment["DOCKER_CONFIG"] = str(tmp_path / "docker")
        write_config(tmp_path / "docker", auths={real.host: {"auth": basic(USER, PASSWORD).removeprefix("Basic ")}})
        machine.make(f"{real.host}/team/app:1", *[LARGEST * 2] * 4)

        machine.run("push", f"{real.host}/team/app:1")

    assert tokens.asked


def test_a_registry_with_identity_tokens(machine: Machine, other: Machine, tmp_path: Path) -> None:
    with TokenServer(tmp_path / "tokens") as tokens, DockerRegistry(tmp_path / "registry", tokens=tokens) as real:
        for computer in (machine, other):
            write_config(computer.home / ".docker", auths={real.host: {"identitytoken": tokens.identity}})
        there_and_back(machine, other, real.host)

    assert {tuple(question["grant_type"]) for question in tokens.asked} == {("refresh_token",)}


def test_a_mount_between_repositories_with_tokens(machine: Machine, tmp_path: Path) -> None:
    with TokenServer(tmp_path / "tokens") as tokens, DockerRegistry(tmp_path / "registry", tokens=tokens) as real:
        machine.environment |= {
            "PYBUILD_REGISTRY": real.host,
            "PYBUILD_REGISTRY_USER": USER,
            "PYBUILD_REGISTRY_PASSWORD": PASSWORD,
        }
        machine.make(f"{real.host}/team/base:1", 100_000)
        machine.run("push", f"{real.host}/team/base:1")
        machine.run("push", f"{real.host}/team/base:1", f"{real.host}/team/app:1")

        uploads = list((real.folder / "data").glob("**/repositories/team/app/_layers/sha256/*/link"))
        requests = [line for line in (real.folder / "log").read_text().splitlines() if " /v2/team/app/blobs/" in line]

    assert len(uploads) == 2
    assert sum('from=team/base HTTP/1.1" 201' in line for line in requests) == 2
    assert not any('"PUT ' in line or '"PATCH ' in line for line in requests)


def test_a_registry_with_certificates_of_its_own(machine: Machine, other: Machine, tmp_path: Path) -> None:
    """An authority that nobody knows vouches for the registry, and the registry wants to see who asks."""
    authority = Authority.make(tmp_path / "authority")
    client, key = authority.sign("client")
    with DockerRegistry(
        tmp_path / "registry", certificate=authority.sign("registry"), client_authority=authority.certificate
    ) as real:
        machine.make(f"{real.host}/team/app:1", 10)
        untrusted = machine.fails("push", f"{real.host}/team/app:1")
        for computer in (machine, other):
            folder = computer.home / ".config/containers/certs.d" / real.host
            folder.mkdir(parents=True)
            (folder / "ca.crt").write_text(Path(authority.certificate).read_text())
        unknown = machine.fails("push", f"{real.host}/team/app:1")
        for computer in (machine, other):
            folder = computer.home / ".config/containers/certs.d" / real.host
            (folder / "client.cert").write_text(Path(client).read_text())
            (folder / "client.key").write_text(Path(key).read_text())
        there_and_back(machine, other, real.host)

    assert "is not trusted" in untrusted
    assert "does not trust us: it wants to see a certificate" in unknown


def test_a_certificate_without_its_key_is_told(machine: Machine) -> None:
    folder = machine.home / ".config/containers/certs.d/reg.invalid"
    folder.mkdir(parents=True)
    (folder / "client.cert").write_text("x")

    assert "has no key" in machine.fails("pull", "reg.invalid/team/app")


@pytest.fixture
def another(tmp_path: Path) -> Iterator[str]:
    """Host and port of django-oci."""
    folder, port = tmp_path / "django", free_port()
    folder.mkdir()
    script = Path(__file__).parent.parent / "testdata/registries/django_registry.py"
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([sys.executable, script, folder, str(port)], stdout=log, stderr=log) as process,
    ):
        try:
            for _ in range(300):
                assert process.poll() is None, (folder / "log").read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def test_a_registry_of_another_maker(machine: Machine, other: Machine, another: str) -> None:
    there_and_back(machine, other, another)


def test_a_registry_of_another_maker_keeps_a_cache(
    machine: Machine, other: Machine, another: str, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch AS one\nCOPY Dockerfile /\nFROM one\nWORKDIR /made\n")
    cache = f"type=registry,ref={another}/team/cache:1"

    machine.run("build", "--progress=plain", "--cache-to", f"{cache},mode=max", str(context))
    machine.run("build", "--progress=plain", "--cache-to", f"{cache},mode=max", str(context))
    other.run("build", "--progress=plain", "--cache-from", cache, str(context))

    assert "0 of 2 steps were new there" in machine.shown
    assert other.shown.count("CACHED") == 2


def test_a_build_pushes_what_it_made(machine: Machine, other: Machine, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    with DockerRegistry(tmp_path / "registry") as real:
        names = [f"{real.host}/team/app:{tag}" for tag in ("1", "2", "3", "4", "5")]
        machine.run("build", "-q", "-t", names[0], "-t", names[1], "--push", str(context))
        machine.run("build", "-q", "-o", f'type=registry,"name={names[2]},{names[3]}"', str(context))
        machine.run("build", "-q", "-t", names[4], "-o", "type=image,push=true", str(context))

        digests = {other.run("pull", name).partition("@")[2] for name in names}

    assert len(digests) == 1
    assert [line.split()[1] for line in machine.run("images").splitlines()[1:]] == ["1", "2", "5"]


def test_a_build_without_a_name_is_not_pushed(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    err = io.StringIO()

    status = main(["build", "-q", "--push", str(tmp_path)], World(machine.environment, io.StringIO(), err))

    assert status == 2
    assert "no name to push" in err.getvalue()


def test_many_threads_may_show_one_certificate(tmp_path: Path) -> None:
    """Each connection loaded them into a context that other threads were using, and Python aborted."""
    authority = Authority.make(tmp_path / "authority")
    client, key = authority.sign("client")
    with DockerRegistry(
        tmp_path / "registry", certificate=authority.sign("registry"), client_authority=authority.certificate
    ) as real:
        folder = tmp_path / "certs.d" / real.host
        folder.mkdir(parents=True)
        for name, source in (("ca.crt", authority.certificate), ("client.cert", client), ("client.key", key)):
            (folder / name).symlink_to(source)
        connection = Connection(RegistrySettings(certificates=(str(folder.parent),)))

        def ask(_: int) -> int:
            with connection.get(f"https://{real.host}/v2/") as answer:
                return answer.status

        with contextlib.closing(connection), ThreadPoolExecutor(16) as pool:
            statuses = set(pool.map(ask, range(200)))

    assert statuses == {200}
