"""Where an image is looked for: mirrors, and hosts without TLS."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pulls import IMAGE, MANIFEST_PATH, Pull, blob_path, name_of
from registries import (
    PASSWORD,
    USER,
    FakeRegistry,
    Reply,
    basic,
    make_certificate,
    stored,
    write_config,
)

from layers.registry.client import RegistrySettings
from layers.registry.errors import NotFoundError, RegistryError, UnreachableError, UntrustedError
from layers.registry.places import Places


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


# --- mirrors


def mirrored(*mirrors: str, host: str) -> RegistrySettings:
    return RegistrySettings(mirrors={host: mirrors})


def test_the_mirror_of_docker_hub_is_asked_with_its_prefix_and_the_library(fake: FakeRegistry) -> None:
    fake.add("hub/library/python", "latest", IMAGE)

    with Pull(mirrored(f"{fake.host}/hub", host="docker.io")) as pull:
        image = pull.resolve("python")

    assert image.descriptor.digest == IMAGE.digest


def test_what_the_mirror_does_not_have_comes_from_the_registry_itself(fake: FakeRegistry) -> None:
    with FakeRegistry() as mirror, Pull(mirrored(mirror.host, host=fake.host)) as pull:
        pull.resolve(name_of(fake))
        pull.fetch(name_of(fake))

        assert {layer.digest for layer in IMAGE.layers} < pull.stored().keys()
    assert mirror.paths("team/app") == [MANIFEST_PATH]
    assert pull.warnings == []


def test_a_mirror_that_does_not_answer_is_told_and_passed_over(fake: FakeRegistry) -> None:
    with Pull(mirrored("127.0.0.1:9", host=fake.host)) as pull:
        pull.resolve(name_of(fake))
        pull.fetch(name_of(fake))

    assert pull.warnings == [f"127.0.0.1:9 does not answer: connection refused; asking {fake.host} itself"]


def test_a_mirror_that_stays_busy_is_passed_over(fake: FakeRegistry) -> None:
    with FakeRegistry() as mirror, Pull(mirrored(mirror.host, host=fake.host)) as pull:
        mirror.replies[MANIFEST_PATH] = Reply(503)

        image = pull.resolve(name_of(fake))

    assert image.descriptor.digest == IMAGE.digest
    assert len(pull.warnings) == 1


def test_a_mirror_may_lack_a_blob(fake: FakeRegistry) -> None:
    with FakeRegistry() as mirror, Pull(mirrored(mirror.host, host=fake.host)) as pull:
        mirror.add("team/app", "1", IMAGE)
        del mirror.replies[blob_path()]
        pull.resolve(name_of(fake))

        pull.fetch(name_of(fake))

        assert {layer.digest for layer in IMAGE.layers} < pull.stored().keys()


def test_a_mirror_with_wrong_bytes_is_not_passed_over_in_silence(fake: FakeRegistry) -> None:
    with FakeRegistry() as mirror, Pull(mirrored(mirror.host, host=fake.host)) as pull:
        mirror.replies[f"/v2/team/app/manifests/{IMAGE.digest}"] = Reply(body=b"{}")

        with pytest.raises(RegistryError, match="wrong bytes"):
            pull.resolve(f"{fake.host}/team/app@{IMAGE.digest}")


def test_a_mirror_is_given_its_own_login(tmp_path: Path, fake: FakeRegistry) -> None:
    with FakeRegistry(auth="basic") as mirror:
        mirror.add("team/app", "1", IMAGE)
        folder = write_config(tmp_path, auths={mirror.host: stored(), fake.host: stored("other", "other")})
        settings = RegistrySettings(mirrors={fake.host: (mirror.host,)}, docker_config=folder)

        with Pull(settings) as pull:
            pull.resolve(name_of(fake))

    assert {asked.authorization for asked in mirror.asked} == {"", basic(USER, PASSWORD)}
    assert fake.asked == []


def test_the_mirror_is_named_when_nobody_has_it(fake: FakeRegistry) -> None:
    with FakeRegistry() as mirror, Pull(mirrored(mirror.host, host=fake.host)) as pull:
        unknown = f"{fake.host}/team/none"

        with pytest.raises(NotFoundError) as caught:
            pull.resolve(unknown)

    assert mirror.host in caught.value.hint


# --- plain http and TLS


def test_only_loopback_and_named_hosts_may_be_plain() -> None:
    places = Places(RegistrySettings(insecure=frozenset({"plain.example", "other.example:5000"})))

    assert places.origins("docker.io") == ("https://registry-1.docker.io",)
    assert places.origins("reg.example:5000") == ("https://reg.example:5000",)
    assert places.origins("other.example") == ("https://other.example",)
    for host in ("plain.example", "plain.example:80", "other.example:5000", "localhost:1", "127.9.9.9", "[::1]:5000"):
        assert places.origins(host) == (f"https://{host}", f"http://{host}")


def test_loopback_is_reached_past_any_proxy(fake: FakeRegistry, pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")

    assert pull.resolve(name_of(fake)).descriptor.digest == IMAGE.digest


def test_another_host_is_reached_through_the_proxy(pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")

    with pytest.raises(UnreachableError, match=r"the proxy on the way to reg\.invalid does not answer"):
        pull.resolve("reg.invalid/team/app")


@pytest.mark.kernel
def test_tls_is_verified(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with FakeRegistry(certificate=certificate) as fake:
        fake.add("team/app", "1", IMAGE)

        with Pull(RegistrySettings(ca_file=certificate[0])) as pull:
            assert pull.resolve(name_of(fake)).descriptor.digest == IMAGE.digest
        with Pull() as pull, pytest.raises(UntrustedError, match="is not trusted: self-signed certificate") as caught:
            pull.resolve(name_of(fake))

    assert f"--insecure-registry {fake.host}" in caught.value.hint


@pytest.mark.kernel
def test_an_insecure_host_may_have_any_certificate(tmp_path: Path) -> None:
    with FakeRegistry(certificate=make_certificate(tmp_path)) as fake:
        fake.add("team/app", "1", IMAGE)

        with Pull(RegistrySettings(insecure=frozenset({fake.host}))) as pull:
            assert pull.resolve(name_of(fake)).descriptor.digest == IMAGE.digest
