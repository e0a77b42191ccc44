"""How records become plain JSON values and come back, checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from autosparse.errors import UsageError


class Record:
    """Base of all records: to and from plain JSON values."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Gives the record as dicts, lists, strings, numbers, booleans and None."""
        return {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Rebuilds a record from `to_json`'s output.

        Raises:
            UsageError: an unknown or missing key, or a value that breaks the record's rules.
        """
        hints = typing.get_type_hints(cls)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise UsageError(f"{cls.__name__} has no field {unknown[0]!r}; fields: {sorted(hints)}")
        try:
            return cls(**{key: _typed(hints[key], value) for key, value in values.items()})
        except TypeError as error:
            raise UsageError(f"{cls.__name__} cannot be read: {error}") from None


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
    origin = typing.get_origin(hint)
    if value is None:
        return None
    if origin is typing.Union or origin is types.UnionType:
        inner = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        return _typed(inner[0], value) if len(inner) == 1 else value
    if origin is tuple:
        arms = typing.get_args(hint)
        if len(arms) == 2 and arms[1] is Ellipsis:
            return tuple(_typed(arms[0], item) for item in value)
        return tuple(_typed(arm, item) for arm, item in zip(arms, value, strict=True))
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return {key: _typed(typing.get_args(hint)[1], item) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_json(value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    if hint is float and isinstance(value, int):
        return float(value)
    return value


def short_hash(value: Any, length: int = 8) -> str:
    """Gives a stable hash of plain JSON values, `length` hexadecimal digits."""
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]
