"""YAML that users write, read with every way to get it wrong told in one line."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from autosparse.errors import AutosparseError
from autosparse.storage.files import read_bytes


class YamlError(ValueError):
    """A text is no YAML, or none that can be meant; the message says where and why."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where PyYAML lets the later value win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


# YAML 1.1 wants a dot in a float, so that PyYAML reads 1e-4 as text, which nobody means.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)


def read_yaml(path: Path) -> Any:
    """Reads a YAML file.

    Raises:
        OSError: as `files.opened` does.
        YamlError: it is no YAML, or not UTF-8.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(f"byte {error.start} is no UTF-8") from None
    return parse_yaml(text)


def read_mapping(path: Path, what: str, refusal: type[AutosparseError]) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Args:
        path: the file.
        what: it should be, such as ``a plan``.
        refusal: raised if it is missing, no YAML, or holds something else.
    """
    try:
        values = read_yaml(path)
    except (OSError, YamlError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise refusal(f"{what} must be a readable YAML file, but got {path}: {reason}") from None
    if not isinstance(values, dict):
        raise refusal(f"{what} must be a mapping of keys to values, but got {path}, which holds none")
    return values


def parse_yaml(text: str) -> Any:
    """Reads YAML: plain values, dates and bytes; nothing in it is executed.

    Raises:
        YamlError: it is no YAML.
    """
    try:
        return yaml.load(text, _Loader)  # a safe loader's child
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise YamlError(where + (error.problem or error.context or "it is no YAML")) from None
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from None
    except RecursionError:
        raise YamlError("values are nested too deeply") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML does not look whether a value can be what it looks like: a 30th of February.
        raise YamlError(f"a value is not what it looks like, or what its tag says: {error}") from None
