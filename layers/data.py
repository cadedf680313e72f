"""Data classes that cost next to nothing to define.

The standard library's are made by compiling six functions a class: 0.5 ms each, and `dataclasses` itself is 10 ms to
import. A build with nothing to do, which is what people run most, defines a hundred and twenty and uses a third of
them; that was two fifths of its time. These mean the same in the options that they take, and their methods are closures
over the names of the fields. To make an instance costs 2 us instead of 1: of what there is one a file, make a
NamedTuple.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, NoReturn, TypeVar, dataclass_transform

_T = TypeVar("_T")
_NOTHING = object()
_FIELDS = "__data_fields__"
_OF_EVERY_CLASS = frozenset({"__dict__", "__weakref__"})


class Field(NamedTuple):
    """One field of a data class."""

    name: str
    default: object = _NOTHING
    factory: Callable[[], object] | None = None
    shown: bool = True
    """In `repr`, which goes into messages: what is secret is not."""
    keyword: bool = False
    """It can be given by name alone."""


def field(
    *,
    default: object = _NOTHING,
    default_factory: Callable[[], object] | None = None,
    repr: bool = True,  # noqa: A002 - dataclasses.field has this name
) -> Any:  # noqa: ANN401 - it stands where a value of the field's own type is expected
    """What a field is if nothing is given for it, as `dataclasses.field` says it."""
    return Field("", default, default_factory, repr)


@dataclass_transform(field_specifiers=(field,))
def dataclass(
    *, eq: bool = True, frozen: bool = False, slots: bool = False, kw_only: bool = False
) -> Callable[[type[_T]], type[_T]]:
    """Make a class of a list of annotated names, as `dataclasses.dataclass` does, `__post_init__` included."""

    def make(plain: type[_T]) -> type[_T]:
        inherited = {item.name: item for base in reversed(plain.__mro__[1:]) for item in vars(base).get(_FIELDS, ())}
        own = {name: _field_of(plain, name, keyword=kw_only) for name in plain.__annotations__}
        all_fields = tuple({**inherited, **own}.values())
        left_out = _OF_EVERY_CLASS | own.keys()
        kept = {name: member for name, member in vars(plain).items() if name not in left_out}
        members: dict[str, object] = {
            **_methods(all_fields, getattr(plain, "__post_init__", None), frozen=frozen),
            **kept,
            _FIELDS: all_fields,
            "__dataclass_fields__": _StandardFields(),
        }
        if not eq:
            members |= {"__eq__": object.__eq__, "__hash__": object.__hash__}
        if slots:  # only a new class can have them
            members["__slots__"] = tuple(name for name in own if name not in inherited)
        made: type[_T] = type.__new__(type(plain), plain.__name__, plain.__bases__, members)
        made.__qualname__ = plain.__qualname__
        return made

    return make


class _StandardFields:
    """What `dataclasses.replace` and its like ask a class for, made when they do: others may know only those."""

    def __get__(self, _: object, owner: type) -> object:
        import dataclasses

        names = [item.name for item in getattr(owner, _FIELDS)]
        return getattr(dataclasses.make_dataclass(owner.__name__, names), "__dataclass_fields__")  # noqa: B009 - mypy knows none


def fields(instance: object) -> tuple[Field, ...]:
    """The fields of a data class in their order."""
    found: tuple[Field, ...] = getattr(instance, _FIELDS)
    return found


def replace(instance: _T, **changes: object) -> _T:
    """The same, but for what is named."""
    kept = {item.name: getattr(instance, item.name) for item in fields(instance) if item.name not in changes}
    return type(instance)(**kept, **changes)


def asdict(instance: object) -> dict[str, object]:
    """The fields by name; data classes in them, and in tuples of them, become such dictionaries too."""
    return {item.name: _as_plain(getattr(instance, item.name)) for item in fields(instance)}


def _as_plain(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_as_plain, value))
    return asdict(value) if hasattr(type(value), _FIELDS) else value


def _field_of(plain: type, name: str, *, keyword: bool) -> Field:
    given = vars(plain).get(name, _NOTHING)
    if isinstance(given, Field):
        return given._replace(name=name, keyword=keyword)
    return Field(name, given, keyword=keyword)


def _methods(of: tuple[Field, ...], check: Callable[[object], None] | None, *, frozen: bool) -> dict[str, object]:
    names = tuple(item.name for item in of)
    positional = tuple(item.name for item in of if not item.keyword)
    values = attrgetter(*names) if names else lambda _: ()
    named_fields = tuple(zip(names, of, strict=True))
    set_attribute = object.__setattr__

    def init(self: object, *given: object, **named: object) -> None:
        bound = dict(zip(positional, given, strict=False))
        if len(given) > len(positional) or not named.keys().isdisjoint(bound):
            raise TypeError(f"{type(self).__name__} takes ({', '.join(names)}), each of them once")
        bound.update(named)
        for name, item in named_fields:
            set_attribute(self, name, bound.pop(name) if name in bound else _default(item, type(self)))
        if bound:
            raise TypeError(f"{type(self).__name__} has no {', '.join(bound)}")
        if check is not None:
            check(self)

    def equal(self: object, other: object) -> bool:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    methods: dict[str, object] = {
        "__init__": init,
        "__eq__": equal,
        "__hash__": None,
        "__repr__": _show,
        "__getstate__": _state,
        "__setstate__": _restore,
        "__match_args__": positional,
    }
    if frozen:
        methods |= {"__hash__": lambda self: hash(values(self)), "__setattr__": _refuse, "__delattr__": _refuse}
    return methods


def _show(instance: object) -> str:
    shown = (f"{item.name}={getattr(instance, item.name)!r}" for item in fields(instance) if item.shown)
    return f"{type(instance).__qualname__}({', '.join(shown)})"


def _state(instance: object) -> dict[str, object]:
    return {item.name: getattr(instance, item.name) for item in fields(instance)}


def _restore(instance: object, state: dict[str, object]) -> None:
    """Of pickle, as `_state` is."""
    for name, value in state.items():
        object.__setattr__(instance, name, value)


def _default(item: Field, owner: type) -> object:
    if item.factory is not None:
        return item.factory()
    if item.default is _NOTHING:
        raise TypeError(f"{owner.__name__} needs {item.name}")
    return item.default


def _refuse(instance: object, name: str, *_: object) -> NoReturn:
    raise AttributeError(f"{type(instance).__name__} is frozen: {name} stays as it is")
