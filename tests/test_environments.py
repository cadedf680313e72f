"""How scripts/environments compares what environments make; that they make the same is for it to show."""

from dataclasses import replace

import pytest
import users
from cases import CASES
from compare import FIELDS, Exemption, differences, read_exemptions
from environments import ENVIRONMENTS, REFERENCE
from reading import Image, Item, Layer

FILE = Item("srv/file", "file", "0644", "0:0", 1_700_000_000, "", "", "", "3 abc")


def image_of(*items: Item, config: str = "{}", name: str = "sha256:1") -> Image:
    return Image(name, config, (Layer("RUN x", name, items),))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "folder"),
        ("mode", "4644"),
        ("owner", "1500:0"),
        ("mtime", 1_700_000_001),
        ("target", "elsewhere"),
        ("device", "1:3"),
        ("attributes", "user.note=68"),
        ("content", "3 abd"),
    ],
)
def test_every_field_of_an_entry_counts(field: str, value: str) -> None:
    other = replace(FILE, **{field: value})  # type: ignore[arg-type]  # one of them is no text

    [found] = differences(image_of(FILE), image_of(other, name="sha256:2"))

    assert (found.path, found.field, found.ours) == ("srv/file", field, str(value))


def test_all_fields_are_compared() -> None:
    assert set(FIELDS) == {"kind", "mode", "owner", "mtime", "target", "device", "attributes", "content"}


@pytest.mark.parametrize(("theirs", "ours"), [((FILE,), ()), ((), (FILE,))])
def test_a_path_that_is_there_but_once_is_a_difference(theirs: tuple[Item, ...], ours: tuple[Item, ...]) -> None:
    [found] = differences(image_of(*theirs), image_of(*ours, name="sha256:2"))

    assert (found.path, found.field) == ("srv/file", "path")


def test_another_order_of_the_same_entries_is_a_difference() -> None:
    other = replace(FILE, path="srv/other")

    [found] = differences(image_of(FILE, other), image_of(other, FILE, name="sha256:2"))

    assert found.field == "bytes"


def test_another_configuration_is_a_difference() -> None:
    [found] = differences(image_of(FILE), image_of(FILE, config='{"User": "joe"}'))

    assert found.field == "configuration"


def test_a_layer_less_is_a_difference() -> None:
    [found] = differences(image_of(FILE), Image("sha256:2", "{}", ()))

    assert found.field == "steps"


@pytest.mark.parametrize(
    ("exemption", "covers"),
    [
        (Exemption("srv/*", ("owner",), "so"), True),
        (Exemption("srv/*", ("owner",), "so", ("E3",), ("owners",)), True),
        (Exemption("etc/*", ("owner",), "so"), False),
        (Exemption("srv/*", ("mode", "content"), "so"), False),
        (Exemption("srv/*", ("owner",), "so", ("E4",)), False),
        (Exemption("srv/*", ("owner",), "so", (), ("kinds",)), False),
    ],
)
def test_an_exemption_covers_what_it_names_and_nothing_else(exemption: Exemption, *, covers: bool) -> None:
    [found] = differences(image_of(FILE), image_of(replace(FILE, owner="1:1"), name="sha256:2"))

    assert exemption.covers(found, "E3", "owners") == covers


def test_the_list_of_exemptions_names_what_there_is() -> None:
    exemptions = read_exemptions(users.CHECKOUT / "testdata/environments/exemptions.toml")

    assert {name for each in exemptions for name in each.fields} <= {*FIELDS, "path", "configuration", "status"}
    assert {name for each in exemptions for name in each.environments} <= {each.name for each in ENVIRONMENTS}
    assert {name for each in exemptions for name in each.cases} <= {case.name for case in CASES}
    assert all(each.reason for each in exemptions)


def test_the_reference_runs_everything() -> None:
    assert REFERENCE.runs
    assert REFERENCE.container is None
    assert [case.name for case in CASES if not (users.CHECKOUT / case.context / "Dockerfile").is_file()] == []
