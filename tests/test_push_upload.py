"""One blob on its way into registries of all habits, over lines that break."""

from collections.abc import Callable, Iterator

import pytest
from pushes import KIB, Push
from registries import Asked, Reply
from uploads import Habits, PushRegistry

from layers.errors import StoreError
from layers.oci import Descriptor
from layers.registry.errors import DroppedError, RegistryError
from layers.registry.pace import LARGEST, SMALLEST, Pace


@pytest.fixture
def person() -> Iterator[Push]:
    """Somebody who sends pieces of 100 KiB."""
    with Push() as pushing:
        yield pushing


def sent(fake: PushRegistry) -> list[str]:
    """What was asked for the first layer; the configuration that follows goes in three requests of its own."""
    return fake.methods("/blobs/")[:-3]


def break_once(method: str, count: int) -> Callable[[Asked], int | None]:
    """Ends the connection after so many bytes of the second body that comes by this method."""
    seen: list[Asked] = []

    def breaks(asked: Asked) -> int | None:
        if asked.method == method:
            seen.append(asked)
        return count if asked.method == method and len(seen) == 2 else None

    return breaks


def push(person: Push, fake: PushRegistry, size: int) -> Descriptor:
    """Push an image with one layer, which is there afterwards, and is given."""
    image = person.make(size)
    person.push(fake, image)
    (layer,) = person.layers_of(image)
    assert len(fake.repository("team/app").blobs[layer.digest]) == size
    return layer


# --- ways


def test_a_small_blob_goes_in_one_request(person: Push) -> None:
    with PushRegistry() as fake:
        push(person, fake, 100 * KIB)

    assert sent(fake) == ["HEAD", "POST", f"PUT {100 * KIB}"]


def test_a_large_blob_goes_in_pieces(person: Push) -> None:
    with PushRegistry() as fake:
        push(person, fake, 250 * KIB)

    pieces = [f"PATCH {size * KIB}" for size in (100, 100, 50)]
    assert sent(fake) == ["HEAD", "POST", *pieces, "PUT"]


def test_pieces_say_where_they_belong(person: Push) -> None:
    with PushRegistry() as fake:
        push(person, fake, 150 * KIB)

    ranges = [asked.headers["content-range"] for asked in fake.asked if asked.method == "PATCH"]
    assert ranges == ["0-102399", "102400-153599"]


def test_a_piece_is_as_large_as_the_registry_wants(person: Push) -> None:
    with PushRegistry(Habits(least=200 * KIB)) as fake:
        push(person, fake, 250 * KIB)

    assert sent(fake)[2:4] == [f"PATCH {200 * KIB}", f"PATCH {50 * KIB}"]


@pytest.mark.parametrize("status", [400, 405, 415, 501])
def test_a_registry_that_takes_no_pieces_gets_the_whole(person: Push, status: int) -> None:
    with PushRegistry(Habits(patch=status)) as fake:
        push(person, fake, 250 * KIB)
        fake.asked.clear()
        push(person, fake, 250 * KIB)

    # The second time it is known.
    assert fake.methods("/blobs/")[:3] == ["HEAD", "POST", f"PUT {250 * KIB}"]


@pytest.mark.parametrize("status", [400, 405, 411])
def test_a_registry_that_does_not_take_the_whole_gets_pieces(person: Push, status: int) -> None:
    with PushRegistry(Habits(whole=status)) as fake:
        push(person, fake, 50 * KIB)

    assert fake.methods("/blobs/")[3:7] == ["HEAD", "POST", f"PATCH {50 * KIB}", "PUT"]


def test_a_registry_that_takes_neither_is_an_error(person: Push) -> None:
    with PushRegistry(Habits(patch=405, whole=405)) as fake, pytest.raises(RegistryError, match="answers 405"):
        person.push(fake, person.make(50 * KIB))


def test_what_is_too_large_for_a_proxy_goes_in_smaller_pieces(person: Push) -> None:
    with PushRegistry(Habits(largest=70 * KIB)) as fake:
        push(person, fake, 250 * KIB)

    assert fake.methods("/blobs/").count(f"PATCH {SMALLEST}") == 3


def test_a_proxy_that_takes_nothing_is_named(person: Push) -> None:
    with PushRegistry(Habits(largest=10)) as fake, pytest.raises(RegistryError, match="answers 413") as caught:
        person.push(fake, person.make(250 * KIB))

    assert "client_max_body_size" in caught.value.hint


@pytest.mark.parametrize(
    "location",
    [
        "/v2/{name}/blobs/uploads/{id}",
        "{origin}/v2/{name}/blobs/uploads/{id}?state=a%2Bb&more",
        "{id}",
    ],
)
def test_the_place_of_an_upload_is_written_in_many_ways(person: Push, location: str) -> None:
    with PushRegistry(Habits(location=location)) as fake:
        push(person, fake, 150 * KIB)

    (last,) = [asked.path for asked in fake.asked if asked.method == "PUT" and "u0" in asked.path]
    assert last.count("?") == 1
    assert ("state=a%2Bb&more&digest=sha256" in last) == ("state" in location)


@pytest.mark.parametrize(("location", "words"), [("", "does not say where"), ("ftp://x/", "not a URL of http")])
def test_a_place_that_is_none_is_one_clear_error(person: Push, location: str, words: str) -> None:
    with PushRegistry(Habits(location=location)) as fake, pytest.raises(RegistryError, match=words):
        person.push(fake, person.make(10))


# --- what breaks


def test_an_upload_goes_on_where_it_broke_off(person: Push) -> None:
    with PushRegistry() as fake:
        fake.breaks = break_once("PATCH", 30 * KIB)

        push(person, fake, 250 * KIB)

    assert sent(fake)[2:] == [f"PATCH {100 * KIB}", f"PATCH {100 * KIB}", "GET", *sent(fake)[5:7], "PUT"]
    assert sent(fake)[5:7] == [f"PATCH {100 * KIB}", f"PATCH {20 * KIB}"]


def test_a_forgotten_upload_begins_again_in_smaller_pieces(person: Push) -> None:
    with PushRegistry(Habits(remembers=False)) as fake:
        fake.breaks = break_once("PATCH", 30 * KIB)

        push(person, fake, 250 * KIB)

    assert sent(fake)[4:7] == ["GET", "HEAD", "POST"]
    assert set(sent(fake)[7:-1]) == {f"PATCH {SMALLEST}", f"PATCH {58 * KIB}"}


def test_a_registry_that_does_not_tell_gets_the_piece_again(person: Push) -> None:
    with PushRegistry(Habits(tells=False)) as fake:
        fake.breaks = break_once("PATCH", 0)

        push(person, fake, 250 * KIB)

    assert sent(fake).count("POST") == 1


@pytest.mark.parametrize("count", [1, 30 * KIB])
def test_a_registry_that_does_not_tell_what_it_has_gets_all_again(person: Push, count: int) -> None:
    with PushRegistry(Habits(tells=False)) as fake:
        fake.breaks = break_once("PATCH", count)

        push(person, fake, 250 * KIB)


def test_a_registry_without_ranges_is_believed(person: Push) -> None:
    with PushRegistry(Habits(ranges=False)) as fake:
        push(person, fake, 250 * KIB)

    assert sent(fake).count("PATCH 102400") == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_answer_that_says_again_costs_one_piece(person: Push, status: int) -> None:
    with PushRegistry() as fake:
        fake.first["/v2/team/app/blobs/uploads/u0"] = [Reply(status)]

        push(person, fake, 250 * KIB)

    assert sum(len(asked.body) for asked in fake.asked if asked.method == "PATCH") == 350 * KIB
    assert len(person.pauses) == 1


def test_a_lost_answer_to_the_last_request_costs_nothing(person: Push) -> None:
    """The registry has the blob, and only the news of it did not arrive."""
    with PushRegistry() as fake:
        lost = [True]
        usual = fake._finish

        def finish(*arguments: object) -> Reply:
            reply = usual(*arguments)  # type: ignore[arg-type]  # handed on
            return Reply(0) if lost and lost.pop() else reply

        fake._finish = finish  # type: ignore[assignment, method-assign]  # a server that loses an answer

        push(person, fake, 150 * KIB)

    assert sum(len(asked.body) for asked in fake.asked if asked.method == "PATCH") == 150 * KIB


def test_only_tries_that_bring_nothing_are_counted(person: Push) -> None:
    """A line that breaks after each 10 KiB is slow, and no reason to give up."""
    with PushRegistry() as fake:
        fake.breaks = lambda asked: 10 * KIB if asked.method == "PATCH" and len(asked.body) > 10 * KIB else None

        push(person, fake, 150 * KIB)

    assert sent(fake).count("GET") > 10


def test_a_line_that_brings_nothing_is_given_up(person: Push) -> None:
    with PushRegistry() as fake:
        fake.breaks = lambda asked: 0 if asked.method == "PATCH" else None

        with pytest.raises(DroppedError):
            person.push(fake, person.make(150 * KIB))

    assert len(person.pauses) == 4


def test_after_breaks_each_piece_has_a_connection_of_its_own() -> None:
    pace = Pace()

    pace.broke(9_000_000)

    assert pace.alone
    assert pace.piece == 1 << 20


def test_a_break_after_a_few_bytes_says_nothing_of_the_line() -> None:
    pace = Pace()

    pace.broke(1000)

    assert not pace.alone
    assert pace.piece == LARGEST


@pytest.mark.parametrize("count", [SMALLEST + 1, 1 << 20, 1 << 40])
def test_pieces_have_bounds(count: int) -> None:
    pace = Pace()

    pace.broke(count)

    assert SMALLEST <= pace.piece <= LARGEST


# --- wrong bytes


def test_bytes_that_change_on_the_way_are_told_from_bytes_that_are_wrong_here(person: Push) -> None:
    answer = Reply(400, body=b'{"errors": [{"code": "DIGEST_INVALID", "message": "digest did not match"}]}')
    with PushRegistry() as fake:
        fake.replies["/v2/team/app/blobs/uploads/u0"] = answer

        with pytest.raises(RegistryError, match="DIGEST_INVALID") as caught:
            person.push(fake, person.make(10))

    assert "between here and the registry" in caught.value.hint


def test_a_damaged_blob_is_an_error_of_the_store(person: Push) -> None:
    image = person.make(10)
    person.damage(person.layers_of(image)[0])

    with PushRegistry() as fake, pytest.raises(StoreError, match="in the store is damaged"):
        person.push(fake, image)


def test_the_first_error_ends_all(person: Push) -> None:
    with PushRegistry() as fake:
        fake.replies["/v2/team/app/blobs/uploads/"] = Reply(403)

        with pytest.raises(RegistryError, match="no permission to push"):
            person.push(fake, person.make(*[1000] * 20), parallel=2)

    assert fake.methods().count("POST") < 10
