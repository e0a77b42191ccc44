"""All that is claimed of GPU kernels, built, verified and measured on this host's GPU in some minutes.

    python benchmarks/gpu_check.py [--minutes 8] [--quick] [--out FILE]

Layers are tuned as a search does it, which verifies every kernel, and the best of each way is
then timed anew, in turn with the others, in replayed CUDA graphs: so no figure is the luckiest of many.
Whole models run in turn with what torch.compile makes of them. What time does not allow is named. Exits
with 7 where there is no GPU, with 1 where a result was wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from gpu_figures import Goal, LayerFigure, WholeFigure, goals, show_goals, show_layer, show_whole
from gpu_layers import Checker
from gpu_models import bert_base
from gpu_shapes import Case, convolutions, linears
from torch import nn

from autosparse import models
from autosparse.devices.device import find
from autosparse.devices.kinds.cuda.device import Cuda
from autosparse.errors import AutosparseError
from autosparse.kernels.gpu.method import all_methods
from autosparse.storage.files import write_json
from autosparse.version import __version__

TILES = ("tw128k16", "tw128k32", "tw256k32")
PAIRED = ("tvw128k16",)


@dataclass
class Clock:
    """The time that is left."""

    end_s: float

    @property
    def left_s(self) -> float:
        return self.end_s - time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="after which nothing is begun")
    parser.add_argument("--quick", action="store_true", help="a layer of each kind, and no whole model")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    try:
        device = find("cuda")
        assert isinstance(device, Cuda)
        device = device.with_limits()
    except AutosparseError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return int(error.exit_code)
    clock = Clock(time.monotonic() + 60 * given.minutes)
    print(f"{device.name}, driver {device.gpu.driver}")
    with Checker(device) as checker:
        layers = measure_layers(checker, clock, given.quick)
        wholes = [] if given.quick else measure_wholes(checker, clock)
    found = goals(layers, wholes)
    show_goals(found)
    print(f"\n{60 * given.minutes - clock.left_s:.0f} s")
    out = given.out or Path("results/reference/gpu-check") / f"{slug(device.name)}.json"
    write(out, device, layers, wholes, found)
    print(f"written: {out}")
    wrong = [each.name for each in layers if each.wrong] + [each.name for each in wholes if each.wrong]
    for name in wrong:
        print(f"gpu_check: the results of {name} are wrong", file=sys.stderr)
    return 1 if wrong else 0


def measure_layers(checker: Checker, clock: Clock, quick: bool) -> list[LayerFigure]:
    """Times every layer of the tables; a share of the time that is left is each one's to tune in."""
    asked: list[tuple[str, Case, tuple[str, ...]]] = [
        *(("linears, TW", case, TILES) for case in linears()),
        *(("linears, TVW", case, PAIRED) for case in linears()),
        *(("convolutions, TW", case, TILES) for case in convolutions()),
    ]
    if quick:
        asked = list({group: (group, case, some) for group, case, some in reversed(asked)}.values())
    found = []
    for number, (group, case, patterns) in enumerate(asked):
        # Whole models take about as long as all layers together.
        share_s = clock.left_s / (len(asked) - number) * (1.0 if quick else 0.5)
        if clock.left_s > 0:
            figure = checker.layer(group, case, patterns, share_s)
        else:
            figure = LayerFigure(
                group=group, name=case.name, count=case.count, missing="no time was left"
            )
        show_layer(figure)
        found.append(figure)
    return found


def measure_wholes(checker: Checker, clock: Clock) -> list[WholeFigure]:
    """Times ResNet-50 and BERT-base."""
    image = torch.randn(64, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(0, 1000, (32, 128), generator=torch.Generator().manual_seed(0))
    asked: tuple[tuple[str, Callable[[], nn.Module], torch.Tensor], ...] = (
        ("resnet50, batch 64", lambda: models.resolve("resnet50").module, image),
        ("bert-base, 32 x 128 tokens", bert_base, tokens),
    )
    found = []
    for number, (name, build, x) in enumerate(asked):
        if clock.left_s <= 0:
            figure = WholeFigure(name=name, missing="no time was left")
        else:
            figure = checker.whole(name, build().eval(), x, clock.left_s / (len(asked) - number) / 2)
        show_whole(figure)
        found.append(figure)
    return found


def write(
    out: Path,
    device: Cuda,
    layers: Sequence[LayerFigure],
    wholes: Sequence[WholeFigure],
    found: Sequence[Goal],
) -> None:
    facts: dict[str, Any] = {
        "version": __version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": device.gpu.to_json(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "libraries": {name: method.facts() for name, method in all_methods().items()},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        out,
        {
            **facts,
            "goals": [each.to_json() for each in found],
            "layers": [each.to_json() for each in layers],
            "wholes": [each.to_json() for each in wholes],
        },
    )


def slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


if __name__ == "__main__":
    sys.exit(main())
