"""How records become plain JSON values and come back, checked."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Self

from autosparse.errors import UsageError, got


class Record:
    """Base of all records: to and from plain JSON values."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Gives the record as dicts, lists, strings, numbers, booleans and None.

        Fields that were `added` later are left out where they say nothing new.
        """
        return {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, f.name) not in f.metadata.get(_UNWRITTEN, ())
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Rebuilds a record from `to_json`'s output.

        Raises:
            UsageError: an unknown or missing key, or a value that breaks the record's rules.
        """
        hints = _hints(typing.cast(type, cls))
        if not isinstance(values, Mapping):
            raise UsageError(f"{cls.__name__} must be a mapping of fields, but got {got(values)}")
        unknown = next((key for key in values if key not in hints), None)
        if unknown is not None:
            raise UsageError(f"{cls.__name__} has no field {got(unknown)}; fields: {sorted(hints)}")
        key = None
        try:
            typed = {}
            for key, value in values.items():
                typed[key] = _typed(hints[key], value)
            key = None
            return cls(**typed)
        except (TypeError, ValueError, OverflowError) as error:
            what = cls.__name__ if key is None else f"{key} of {cls.__name__}"
            raise UsageError(f"{what} cannot be read: {error}") from None


_UNWRITTEN = "unwritten"


@functools.cache
def _hints(cls: type) -> Mapping[str, Any]:
    """Gives the types of a record's fields, which takes longer to find out than to use."""
    return typing.get_type_hints(cls)


def added(default: Any, *, unwritten: Sequence[Any] = ()) -> Any:
    """Declares a field of a record that files written before lack.

    JSON leaves it out where it has its default or one of `unwritten`, the values that such files imply,
    so that ids and keys that are hashes of JSON stay what they were.

    Args:
        default: the field's; must be hashable or at least comparable.
        unwritten: further values that are left out.
    """
    return dataclasses.field(default=default, metadata={_UNWRITTEN: (default, *unwritten)})


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _typed(hint: Any, value: Any) -> Any:
    """Gives a plain value as its field wants it.

    Raises:
        TypeError: it is of another type.
        ValueError: it is of the type, but none of the values that are known.
    """
    origin, arms = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union or origin is types.UnionType:
        return _one_of(arms, value)
    if origin is typing.Literal:
        if value not in arms:
            raise ValueError(f"it must be one of {', '.join(map(str, arms))}, but got {got(value)}")
        return value
    if origin is tuple:
        items = _instance(list | tuple, "a list", value)
        if len(arms) == 2 and arms[1] is Ellipsis:
            return tuple(_typed(arms[0], item) for item in items)
        return tuple(_typed(arm, item) for arm, item in zip(arms, items, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        items = _instance(Mapping, "a mapping", value)
        return {_typed(arms[0], key): _typed(arms[1], item) for key, item in items.items()}
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_json(value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(_instance(str, "text", value))
    return _scalar(hint, value)


def _one_of(arms: Sequence[Any], value: Any) -> Any:
    if value is None and type(None) in arms:
        return None
    inner = [arm for arm in arms if arm is not type(None)]
    for arm in inner[:-1]:
        try:
            return _typed(arm, value)
        except (TypeError, ValueError, UsageError):
            continue
    return _typed(inner[-1], value)


def _scalar(hint: Any, value: Any) -> Any:
    if hint is float:
        return float(_instance(int | float, "a number", value))
    if hint is int:
        return _instance(int, "a whole number", value)
    if hint is str:
        return _instance(str, "text", value)
    if hint is bool and not isinstance(value, bool):
        raise TypeError(f"it must be true or false, but got {got(value)}")
    return value


def _instance(kind: Any, word: str, value: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):  # bool is an int to Python
        raise TypeError(f"it must be {word}, but got {got(value)}")
    return value


def short_hash(value: Any, length: int = 8) -> str:
    """Gives a stable hash of plain JSON values, `length` hexadecimal digits."""
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]
