"""Settings are checked where they are bound: by their annotations' types, and the ranges in them.

A configuration's `__post_init__` calls `check(self)`. `Annotated[int, Range(1)]`, here `Count`, is
a whole number from 1; nothing but a number is taken for one, neither "10" nor True, and neither NaN
nor infinity. A float that is whole is taken for an int, since people write 1e6. A text
in an annotation is a remark of the message.
"""

import collections.abc
import dataclasses
import functools
import math
import numbers
import operator
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

from ilm_jax.errors import SettingError

T = TypeVar("T")


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Range:
    """From `low` to `high`; `open_low` and `open_high` leave the bounds themselves out."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'at least'} {self.low}" * (self.low > -math.inf)
        high = f"{'below' if self.open_high else 'at most'} {self.high}" * (self.high < math.inf)
        return " and ".join(filter(None, (low, high)))


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of these names."""

    names: tuple[str, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.names

    def __str__(self) -> str:
        return f"one of {', '.join(self.names)}"


@dataclasses.dataclass(frozen=True)
class Content:
    """A text that names a file: what counts is what the file holds, not where it lies."""

    def __str__(self) -> str:
        return "a file's path"


Count = Annotated[int, Range(1)]
Number = Annotated[int, Range(0)]
# Beyond 32 bits a key would be that of another seed; a seed's successor is used too.
Seed = Annotated[int, Range(0, 2**32 - 2)]
InputFile = Annotated[str, Content()]  # "" where there is none
Positive = Annotated[float, Range(0, open_low=True)]
Weight = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
BelowOne = Annotated[float, Range(0, 1, open_high=True)]
DTypeName = Annotated[str, Choice(("float32", "bfloat16", "float16"))]
Remat = Annotated[str, Choice(("none", "full", "minimal"))]


class _Wrong(Exception):
    """A value that its annotation does not take."""


def check(config: Dataclass) -> None:
    """Checks every field of a dataclass by its annotation, and sets it to the converted value.

    Whole floats become ints and ints floats, lists become tuples and paths strings, where the
    annotation says so. Fields of other types than numbers, texts, flags, configurations and
    collections of them are not checked.

    Raises:
      SettingError: for a value of another type or out of its range, naming class and field.
    """
    owner = type(config)
    for name, hint in hints_of(owner).items():
        value = getattr(config, name)
        try:
            taken = convert(value, hint)
        except _Wrong as wrong:
            raise SettingError(owner.__name__, name, value, str(wrong)) from None
        if taken is not value:
            object.__setattr__(config, name, taken)


def convert(value: Any, hint: object) -> Any:
    """The value as its annotation has it; raises `_Wrong` with what should be given."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        try:
            taken = convert(value, inner[0])
        except _Wrong:
            raise _Wrong(describe(hint)) from None
        for limit in inner[1:]:
            if isinstance(limit, Range | Choice) and taken not in limit:
                raise _Wrong(describe(hint))
        return taken
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, inner, hint)
    if origin is typing.Literal:
        return _taken(any(type(value) is type(one) and value == one for one in inner), value, hint)
    if isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        return _mapping(value, inner, hint)
    if isinstance(origin, type) and issubclass(origin, collections.abc.Sequence):
        return _sequence(value, origin, inner, hint)
    return _plain(value, hint)


def _plain(value: Any, hint: object) -> Any:
    if hint is bool:
        return _taken(isinstance(value, bool), value, hint)
    if hint is int:
        _taken(_is_finite(value) and value == int(value), value, hint)
        return value if type(value) is int else int(value)
    if hint is float:
        _taken(_is_finite(value), value, hint)
        # 0 and 0.0 are one setting, and so one key of a cache and one line of a record.
        return float(value) if isinstance(value, int) else value
    if hint is str:
        text = os.fspath(value) if isinstance(value, os.PathLike) else value
        return _taken(isinstance(text, str), text, hint)
    if hint is os.PathLike:
        return _taken(isinstance(value, hint), value, hint)
    if hint is type(None):
        return _taken(value is None, value, hint)
    protocol = getattr(hint, "_is_runtime_protocol", False)
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or protocol):
        return _taken(isinstance(value, hint), value, hint)
    return value


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond every float
        return False


def _taken(right: bool, value: T, hint: object) -> T:
    if not right:
        raise _Wrong(describe(hint))
    return value


def _one_of(value: object, hints: Sequence[object], whole: object) -> object:
    if isinstance(value, os.PathLike) and os.PathLike in hints:
        return value
    for hint in hints:
        try:
            return convert(value, hint)
        except _Wrong:
            pass
    raise _Wrong(describe(whole))


def _mapping(value: Any, inner: Sequence[object], hint: object) -> Mapping[object, object]:
    _taken(isinstance(value, collections.abc.Mapping), value, hint)
    taken = {}
    for key, entry in value.items():
        try:
            taken[convert(key, inner[0])] = convert(entry, inner[1])
        except _Wrong as wrong:
            raise _Wrong(f"{wrong} for {key!r}") from None
    same = all(taken.get(key) is entry for key, entry in value.items())
    return value if same else taken


def _sequence(value: Any, origin: type, inner: Sequence[object], hint: object) -> Sequence[object]:
    listed = isinstance(value, collections.abc.Sequence) and not isinstance(value, str)
    _taken(listed, value, hint)
    alike = origin is not tuple or (len(inner) == 2 and inner[1] is Ellipsis)
    if not alike and len(inner) != len(value):
        raise _Wrong(describe(hint))
    hints = [inner[0]] * len(value) if alike else inner
    try:
        taken = [convert(entry, one) for entry, one in zip(value, hints, strict=True)]
    except _Wrong:
        raise _Wrong(describe(hint)) from None
    if origin is tuple:
        return tuple(taken)
    return value if all(map(operator.is_, taken, value)) else taken


def describe(hint: object) -> str:
    """An annotation in words: "a whole number, at least 1, or None"."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        named = any(isinstance(limit, Choice) for limit in inner[1:])
        return ", ".join((*([] if named else [describe(inner[0])]), *map(str, inner[1:])))
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(dict.fromkeys(map(describe, inner)))
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        of = "" if inner[1] is Any else f" of {describe(inner[1])} each"
        return f"a dictionary{of}"
    if origin is tuple and Ellipsis not in inner:
        return f"({', '.join(map(describe, inner))})"
    if isinstance(origin, type) and issubclass(origin, collections.abc.Sequence):
        return f"a list of {', '.join(describe(one) for one in inner if one is not Ellipsis)}"
    words = {
        int: "a whole number",
        float: "a finite number",
        bool: "True or False",
        str: "a text",
        type(None): "None",
    }
    if hint in words:
        return words[hint]
    name = getattr(hint, "__name__", str(hint))
    return f"{name}, as @{name}()" if dataclasses.is_dataclass(hint) else f"{name}"


@functools.cache
def hints_of(owner: type[Dataclass]) -> dict[str, object]:
    """{field that `owner` is made with: its annotation} of a dataclass."""
    hints = typing.get_type_hints(owner, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(owner) if field.init}
