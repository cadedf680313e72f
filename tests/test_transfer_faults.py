"""64 MiB through a proxy that breaks, refuses and falsifies, to and from Debian's docker-registry.

What holds: everything arrives right with at most 1.05 times its bytes sent, or one clear error tells what is wrong.
Pieces are a sixteenth of their real size, as the image is of a gigabyte.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import Fault, FaultyProxy, Passing, answer
from pushes import MIB, Push
from registries import HTPASSWD, DockerRegistry, stored, write_config
from tokens import TokenServer

from layers.errors import PybuildError
from layers.layout import Layout
from layers.oci import Descriptor
from layers.parts import parts_of
from layers.registry.client import RegistrySettings
from layers.registry.errors import RegistryError
from layers.registry.pace import LARGEST
from layers.registry.reference import Reference
from layers.registry.transfer import fetch_layers

pytestmark = pytest.mark.kernel

SIZES = (30 * MIB, 20 * MIB, 10 * MIB, 4 * MIB)
TOTAL = sum(SIZES)
CUT = 5 * MIB // 16
MOST = 1.05 * TOTAL


@pytest.fixture(scope="module")
def person() -> Iterator[tuple[Push, Descriptor]]:
    """Somebody with an image of 64 MiB in four layers."""
    with Push(piece=LARGEST // 16) as pushing:
        yield pushing, pushing.make(*SIZES)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry to which everybody may push."""
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def pulled(proxy: FaultyProxy, name: str, person: tuple[Push, Descriptor], folder: Path) -> Layout:
    """A layout with the blobs of the image, which came through the proxy."""
    pushing, image = person
    layout = Layout(str(folder / "pulled"))
    blobs = parts_of(pushing.layout, image).blobs
    reference = Reference.parse(f"{proxy.host}/{name}")
    fetch_layers(pushing.registry, reference, blobs, layout, progress=lambda _, __: None)
    assert all(layout.has(blob) for blob in blobs)
    return layout


def sometimes(fault: Fault, *numbers: int, of: str = "PATCH") -> Callable[[Passing], Fault | None]:
    """A fault of the requests of a method that have these numbers."""
    seen: list[Passing] = []

    def fault_of(passing: Passing) -> Fault | None:
        if passing.method != of or "/blobs/" not in passing.path:
            return None
        seen.append(passing)
        return fault if len(seen) in numbers else None

    return fault_of


def test_a_line_that_breaks_after_every_few_bytes_carries_an_image_there_and_back(
    registry: DockerRegistry, person: tuple[Push, Descriptor], tmp_path: Path
) -> None:
    with FaultyProxy(registry.host, cut=CUT) as proxy:
        person[0].push(proxy, person[1], ["cut/app:1"], parallel=4)
        up, proxy.down = proxy.up, 0
        pulled(proxy, "cut/app:1", person, tmp_path)

    assert proxy.connections > 2 * TOTAL // CUT
    assert up < MOST
    assert proxy.down < MOST


@pytest.mark.parametrize("fault", [answer(429, "Retry-After: 1"), answer(500), answer(503)], ids=["429", "500", "503"])
def test_answers_that_say_again_cost_little(
    registry: DockerRegistry, person: tuple[Push, Descriptor], tmp_path: Path, fault: Fault
) -> None:
    name = f"again{fault.answer[9:12].decode()}/app:1"
    with FaultyProxy(registry.host, fault=sometimes(fault, 7, 30, 50)) as proxy:
        person[0].push(proxy, person[1], [name], parallel=4)
    with FaultyProxy(registry.host, fault=sometimes(fault, 1, 2, 4, of="GET")) as back:
        pulled(back, name, person, tmp_path)

    assert proxy.up < MOST
    assert back.down < MOST


def test_an_answer_that_is_lost_costs_little(registry: DockerRegistry, person: tuple[Push, Descriptor]) -> None:
    with FaultyProxy(registry.host, fault=sometimes(Fault(lose=True), 2, of="PUT")) as proxy:
        person[0].push(proxy, person[1], ["lost/app:1"], parallel=4)

    assert proxy.up < MOST


def test_a_body_that_ends_too_early_is_completed(
    registry: DockerRegistry, person: tuple[Push, Descriptor], tmp_path: Path
) -> None:
    person[0].push(registry, person[1], ["short/app:1"], parallel=4)

    with FaultyProxy(registry.host, fault=sometimes(Fault(truncate=MIB), 1, 2, 3, of="GET")) as proxy:
        pulled(proxy, "short/app:1", person, tmp_path)

    assert proxy.down < MOST


def test_a_bit_that_flips_on_the_way_there_is_one_clear_error(
    registry: DockerRegistry, person: tuple[Push, Descriptor]
) -> None:
    with (
        FaultyProxy(registry.host, fault=sometimes(Fault(flip=True), 20)) as proxy,
        pytest.raises(RegistryError, match="DIGEST_INVALID") as caught,
    ):
        person[0].push(proxy, person[1], ["flipped/app:1"], parallel=4)

    assert "changes bytes" in caught.value.hint
    assert proxy.up < MOST


def test_a_bit_that_flips_on_the_way_back_is_one_clear_error(
    registry: DockerRegistry, person: tuple[Push, Descriptor], tmp_path: Path
) -> None:
    person[0].push(registry, person[1], ["flip/app:1"], parallel=4)

    with (
        FaultyProxy(registry.host, fault=sometimes(Fault(flip=True), 2, of="GET")) as proxy,
        pytest.raises(PybuildError, match="wrong bytes came"),
    ):
        pulled(proxy, "flip/app:1", person, tmp_path)

    assert proxy.down < MOST


def test_a_token_that_is_refused_in_the_middle_is_renewed(person: tuple[Push, Descriptor], tmp_path: Path) -> None:
    with TokenServer(tmp_path / "tokens") as tokens, DockerRegistry(tmp_path / "registry", tokens=tokens) as real:
        challenge = f'WWW-Authenticate: Bearer realm="{tokens.realm}",service="tests"'
        with FaultyProxy(real.host, fault=sometimes(answer(401, challenge), 10, 40)) as proxy:
            settings = RegistrySettings(docker_config=write_config(tmp_path, auths={proxy.host: stored()}))
            with Push(settings, piece=LARGEST // 16) as pushing:
                image = pushing.make(20 * MIB, 20 * MIB)
                pushing.push(proxy, image, ["team/app:1"], parallel=4)

    assert len(tokens.asked) == 3
    assert proxy.up < 1.05 * 40 * MIB


def test_a_password_that_is_refused_in_the_middle_is_one_clear_error(
    person: tuple[Push, Descriptor], tmp_path: Path
) -> None:
    challenge = 'WWW-Authenticate: Basic realm="tests"'
    with (
        DockerRegistry(tmp_path / "registry", htpasswd=HTPASSWD) as real,
        FaultyProxy(real.host, fault=sometimes(answer(401, challenge), 10)) as proxy,
    ):
        settings = RegistrySettings(docker_config=write_config(tmp_path, auths={proxy.host: stored()}))
        with (
            Push(settings, piece=LARGEST // 16) as pushing,
            pytest.raises(RegistryError, match="no permission to push"),
        ):
            pushing.push(proxy, pushing.make(20 * MIB), ["team/app:1"], parallel=4)
