"""Data classes mean what the standard library's mean."""

import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from builder.errors import Location
from layers import data

Made = Callable[[Any], Any]


def point(of: ModuleType) -> Any:
    """A class with every kind of field, made by the project's module or by the standard library's."""

    @of.dataclass(frozen=True, slots=True)
    class Point:
        x: int
        y: int = 2
        tags: list[str] = of.field(default_factory=list)
        secret: str = of.field(default="s", repr=False)

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError("negative")

        def sum(self) -> int:
            return self.x + self.y

    return Point


def named(of: ModuleType) -> Any:
    """A class that inherits fields, which can be given by name alone."""

    @of.dataclass(frozen=True, slots=True, kw_only=True)
    class Base:
        place: int
        note: str = ""

    @of.dataclass(frozen=True, slots=True)
    class Derived(Base):
        words: tuple[str, ...]

    return Derived


@pytest.mark.parametrize(
    "make",
    [
        lambda of: point(of)(1),
        lambda of: point(of)(1, 3, ["a"], "t"),
        lambda of: point(of)(x=4, secret="t"),
        lambda of: point(of)(1, y=9).sum(),
        lambda of: of.replace(point(of)(1, 3), y=7),
        lambda of: named(of)(("a",), place=3),
        lambda of: named(of)(words=("a",), place=3, note="n"),
        lambda of: of.asdict(named(of)((point(of)(1),), place=3)),
        lambda of: point(of).__match_args__,
        lambda of: named(of).__match_args__,
        lambda of: [member.name for member in of.fields(named(of)(("a",), place=3))],
    ],
)
def test_instances_look_the_same(make: Made) -> None:
    assert repr(make(data)) == repr(make(dataclasses))


@pytest.mark.parametrize(
    "make",
    [
        lambda of: point(of)(),
        lambda of: point(of)(1, 2, [], "s", 5),
        lambda of: point(of)(1, x=1),
        lambda of: point(of)(1, z=1),
        lambda of: point(of)(-1),
        lambda of: named(of)(("a",)),
        lambda of: named(of)(("a",), 3),
        lambda of: of.replace(point(of)(1), z=1),
        lambda of: setattr(point(of)(1), "x", 2),
        lambda of: setattr(point(of)(1), "z", 2),
        lambda of: delattr(point(of)(1), "x"),
        lambda of: hash(point(of)(1)),  # of a list
    ],
)
def test_what_is_wrong_is_refused(make: Made) -> None:
    for of in (data, dataclasses):
        with pytest.raises((TypeError, AttributeError, ValueError)):
            make(of)


def test_equal_are_those_of_one_class_with_equal_fields() -> None:
    kind, other = named(data), named(data)
    assert kind(("a",), place=1) == kind(("a",), place=1)
    assert kind(("a",), place=1) != kind(("a",), place=2)
    assert kind(("a",), place=1) != other(("a",), place=1)
    assert len({kind(("a",), place=1), kind(("a",), place=1), kind(("b",), place=1)}) == 2


def test_the_standard_library_takes_them_for_its_own() -> None:
    one: Any = point(data)(1)

    assert dataclasses.replace(one, y=5) == type(one)(1, 5)
    assert dataclasses.asdict(one) == {"x": 1, "y": 2, "tags": [], "secret": "s"}


def test_without_eq_each_is_only_itself() -> None:
    @data.dataclass(frozen=True, slots=True, eq=False)
    class Handle:
        number: int

    first = Handle(1)
    assert first != Handle(1)
    assert len({first, first, Handle(1)}) == 2


def test_what_can_change_has_no_hash_and_only_its_slots() -> None:
    @data.dataclass(slots=True)
    class Count:
        lines: list[str] = data.field(default_factory=list)

    first, second = Count(), Count()
    first.lines.append("a")
    assert second.lines == []
    second.lines = ["a"]
    assert first == second
    with pytest.raises(TypeError):
        hash(first)
    with pytest.raises(AttributeError):
        first.other = 1  # type: ignore[attr-defined]  # that it is none is the point


def test_they_can_be_sent_to_another_process() -> None:
    location = Location("Dockerfile", 1, 2, ("FROM scratch",))
    assert pickle.loads(pickle.dumps(location)) == location


def test_defining_them_compiles_nothing_and_imports_little() -> None:
    code = "import sys, layers.data; print(*{'dataclasses', 'inspect', 'ast', 'dis'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not shown.stdout.split()
