"""State dicts that almost fit the shop's network, and what could be taken for one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.fuzz.shop import Shop
from tests.fuzz.values import Draw


def save_almost(draw: Draw, shop: Shop, path: Path) -> str:
    """Saves such a thing; what cannot be saved leaves no file, or half of one."""
    import torch
    from safetensors.torch import save_file

    state = dict(torch.load(shop / "weights.pt", weights_only=True))
    content: Any = state
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        for _ in range(draw.randrange(3)):
            name = draw.one(sorted(state))
            state[name] = draw.one(_TENSORS)(torch, state[name])
    if draw.chance(0.3):
        state.pop(draw.one(sorted(state)))
    if draw.chance(0.3):
        state[draw.one(_NAMES)] = torch.zeros(3)
    if draw.chance(0.3):
        content = draw.one(_WRAPPERS)(state)
    with suppress(Exception):
        if draw.chance(0.4) and content is state:
            save_file({name: value.contiguous() for name, value in state.items()}, str(path))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=draw.chance(0.7))
    return str(path)


_NAMES = ("extra", "", "0.weight_orig", "0.weight_mask", "a.b", "0.weight_g", "\x1b[0m")
_TENSORS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda torch, t: t[:1],
    lambda torch, t: t.reshape(-1),
    lambda torch, t: t.unsqueeze(0),
    lambda torch, t: t.double(),
    lambda torch, t: t.half(),
    lambda torch, t: t.bfloat16(),
    lambda torch, t: t.to(torch.int8),
    lambda torch, t: t.to(torch.bool),
    lambda torch, t: t.to(torch.complex64),
    lambda torch, t: t.to(torch.float8_e4m3fn),
    lambda torch, t: t * float("nan"),
    lambda torch, t: t / 0,
    lambda torch, t: t * 1e38,
    lambda torch, t: torch.zeros(()),
    lambda torch, t: torch.zeros(0),
    lambda torch, t: torch.zeros(1).expand(10**10),
    lambda torch, t: torch.zeros(1, 1).expand(10**6, 10**6),
    lambda torch, t: t.to_sparse(),
    lambda torch, t: t.to("meta"),
    lambda torch, t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    lambda torch, t: torch.nn.Parameter(t),
    lambda torch, t: t.t() if t.dim() == 2 else t.transpose(0, -1),
    lambda torch, t: None,
    lambda torch, t: 3,
    lambda torch, t: [t],
    lambda torch, t: {"a": t},
    lambda torch, t: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
)
_WRAPPERS: tuple[Callable[[dict[str, Any]], Any], ...] = (
    lambda state: {"state_dict": state},
    lambda state: {"model": state, "model_ema": {k: v for k, v in state.items()}},
    lambda state: {"a": {"b": {"c": {"d": {"e": {"f": state}}}}}},
    lambda state: list(state.items()),
    lambda state: tuple(state.values()),
    lambda state: {f"module.{name}": value for name, value in state.items()},
    lambda state: {number: value for number, value in enumerate(state.values())},
    lambda state: {None: state, 1.5: 2, ("a", "b"): state},
    lambda state: next(iter(state.values())),
    lambda state: {},
    lambda state: {"state_dict": {}},
    lambda state: "weights",
    lambda state: None,
    lambda state: 10**400,
    lambda state: print,
    lambda state: {"x\x1b[31m": "y" * 10_000},
    lambda state: {"n" * 10_000: state["0.weight"]},
)
