"""Captures of models that many tests share: the same classes, settings and sizes are captured once.

What torch makes of a module depends on its classes, their plain attributes and the sizes of its
tensors, not on what the tensors hold. A module that has anything else about it is captured as ever.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

Capture = Callable[[nn.Module, tuple[torch.Tensor, ...]], ExportedProgram]

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.Size)
_TENSORS = ("_parameters", "_buffers", "_modules")
_ANYTHING = ("training",)
_KEPT = 200


def shared(capture: Capture) -> Capture:
    """Gives a capture that remembers; its attribute ``plain`` is the one that does not."""
    known: dict[Hashable, ExportedProgram] = {}

    def captured(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> ExportedProgram:
        key = _key(module, inputs)
        if key is None:
            return capture(module, inputs)
        if key not in known:
            if len(known) >= _KEPT:
                known.pop(next(iter(known)))
            known[key] = _emptied(capture(module, inputs), module)
        return _filled(known[key], module)

    captured.plain = capture  # type: ignore[attr-defined]
    return captured


def _key(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Hashable | None:
    """Names all that a capture depends on; None if that cannot be told."""
    parts: list[Hashable] = []
    seen: dict[int, str] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        settings = _settings(part)
        if settings is None or "forward" in vars(part):
            return None
        tied = seen.setdefault(id(part), name)
        parts.append((name, type(part), type(part).forward, settings, tied))
    for name, tensor in (*_parameters(module), *_buffers(module)):
        tied = seen.setdefault(id(tensor), name)
        parts.append((name, tensor.shape, tensor.stride(), tensor.dtype, tensor.requires_grad, tied))
    parts += [(value.shape, value.stride(), value.dtype) for value in inputs]
    return tuple(parts)


def _parameters(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(module.named_parameters(remove_duplicate=False))


def _buffers(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(module.named_buffers(remove_duplicate=False))


def _settings(part: nn.Module) -> Hashable | None:
    found: list[tuple[str, Hashable]] = []
    for name, value in vars(part).items():
        if name in _TENSORS or name in _ANYTHING:
            continue
        if _is_plain(value):
            found.append((name, value))
        elif isinstance(value, dict | set | list) and not value:
            found.append((name, ()))
        elif name == "_non_persistent_buffers_set":
            found.append((name, frozenset(value)))
        else:
            return None
    return tuple(found)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _emptied(program: ExportedProgram, module: nn.Module) -> ExportedProgram:
    """Gives a capture that keeps none of the module's tensors alive."""
    mine = {name for name, _ in (*_parameters(module), *_buffers(module))}
    empty = copy.copy(program)
    empty._state_dict = {name: None for name in program.state_dict}
    empty._constants = {
        name: None if name in mine else value for name, value in program.constants.items()
    }
    return empty


def _filled(program: ExportedProgram, module: nn.Module) -> ExportedProgram:
    tensors = dict((*_parameters(module), *_buffers(module)))
    full = copy.copy(program)
    full._state_dict = {name: tensors[name] for name in program.state_dict}
    full._constants = {
        name: tensors[name] if value is None else value for name, value in program.constants.items()
    }
    return full
