"""The good files that cases use, or damage: a model, data, weights, runs, databases, an artifact.

Made once per driver. Cases get copies, or read them where they lie.
"""

from __future__ import annotations

import gzip
import json
import pickle
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NET = """
from torch import nn


def build(num_classes=10):
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )
    net.input_shape = (3, 16, 16)
    return net
"""
# Factories as people write them on a bad day.
ODD_NETS = """
import sys
import torch
from torch import nn
from net import build as net

number = 3


def nothing(): pass
def text(): return "net"
def raises(): raise KeyError("x")
def leaves(): sys.exit(0)
def interrupted(): raise SystemExit("go away")
def wants(a, b): return net()
def empty(): return nn.Sequential()
def linear(): return nn.Linear(4, 4)
def odd_shape():
    made = net(); made.input_shape = ("a", None, -1); return made
def huge_shape():
    made = net(); made.input_shape = (3, 10**6, 10**6); return made
def no_shape():
    made = net(); made.input_shape = (); return made
def many_classes(): return net(10**6)
def no_classes(): return net(0)
def transposed(): return nn.Sequential(nn.ConvTranspose2d(3, 8, 3), nn.Flatten(), nn.LazyLinear(10))
def complex_net(): return net().to(torch.complex64)
def double(): return net().double()
def meta(): return net().to("meta")
def nan():
    made = net()
    with torch.no_grad():
        made[0].weight.fill_(float("nan"))
    return made
class Raises(nn.Module):
    def __init__(self):
        super().__init__(); self.fc = nn.Linear(3, 10)
    def forward(self, x): raise RuntimeError("shapes\\ndo not fit\\n" * 30)
class Picks(nn.Module):
    def __init__(self):
        super().__init__(); self.fc = nn.Linear(3, 10)
    def forward(self, x): return self.fc(x.mean((2, 3))) if x.sum() > 0 else x
class Endless(nn.Module):
    def __init__(self):
        super().__init__(); self.fc = nn.Linear(3, 10); self.me = [self]
    def forward(self, x): return self.forward(x)
"""
ODD_NET_NAMES = (
    *("nothing", "text", "raises", "leaves", "interrupted", "wants", "empty", "linear", "odd_shape"),
    *("huge_shape", "no_shape", "many_classes", "no_classes", "transposed", "complex_net", "double"),
    *("meta", "nan", "Raises", "Picks", "Endless", "number", "missing", "sys", "nn"),
)
DATA = """
import torch
from torch.utils.data import TensorDataset


def split(count, side, seed):
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(images, torch.arange(count) % 10)


def load(resolution=None, seed=0):
    return split(60, resolution or 16, 1), split(20, resolution or 16, 2)


def one(): return split(20, 16, 0)
def none(): return None
def raises(): raise OSError("a disk")
def few(): return split(4, 16, 0), split(4, 16, 1)
def no_length(): return iter([]), iter([])
def strings(): return [("a", "b")] * 40, [("a", "b")] * 40
def negative(): return [(torch.rand(3, 8, 8), -1)] * 40, [(torch.rand(3, 8, 8), 0)] * 4
def huge_label(): return [(torch.rand(3, 8, 8), 10**12), (torch.rand(3, 8, 8), 0)] * 9, split(20, 8, 0)
def nan(): return [(torch.rand(3, 8, 8) / 0, i % 2) for i in range(20)], split(20, 8, 0)
def ragged(): return [(torch.rand(3, 8, 8 + i), i % 2) for i in range(8)], split(20, 8, 0)
def flat(): return [(torch.rand(9), i % 2) for i in range(8)], [(torch.rand(9), 0)] * 8
def integers(): return [(torch.full((3, 8, 8), i), i % 2) for i in range(8)], split(9, 8, 0)
"""
DATA_NAMES = (
    *(
        "one",
        "none",
        "raises",
        "few",
        "no_length",
        "strings",
        "negative",
        "huge_label",
        "nan",
        "ragged",
    ),
    *("flat", "integers", "missing", "torch"),
)
SPACE = {
    "version": 1,
    "device": "cpu",
    "block_n": [8, 16],
    "sparsity": [0.5, 0.75],
    "include": ["*"],
    "exclude": [],
    "dense": ["first"],
    "study": {
        "trials": 4,
        "batch_size": 2,
        "startup_trials": 2,
        "seed_points": 2,
        "uniform_sparsity": [0.5],
    },
}


@dataclass(frozen=True)
class Shop:
    """Where the good files are."""

    folder: Path

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def model(self) -> str:
        return f"{self.folder / 'net.py'}:build"

    @property
    def data(self) -> str:
        return f"{self.folder / 'my_data.py'}:load"

    @property
    def config(self) -> dict[str, Any]:
        """Settings that are right together."""
        return {
            "model": self.model,
            "data": self.data,
            "space": str(self / "space.yaml"),
            "latency_budget": "5ms",
            "batch_size": 1,
            "input_shape": [3, 16, 16],
            "dtype": "f32",
            "compact_weights": False,
            "threads": 1,
            "device": "cpu",
            "trials": 4,
            "time_budget": "1m",
            "parallel": 1,
            "seed": 3,
            "include": ["*"],
            "exclude": [],
            "top_k": 1,
            "train": "none",
        }


def stock(folder: Path) -> Shop:
    """Makes the files, unless they are there."""
    shop = Shop(folder)
    if not (folder / "stocked").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _texts(shop)
        _data(shop)
        _weights(shop)
        _databases(shop)
        _run(shop)
        _artifact(shop)
        _home(shop)
        (folder / "stocked").touch()
    return shop


def _texts(shop: Shop) -> None:
    import yaml

    (shop / "net.py").write_text(NET)
    (shop / "odd_nets.py").write_text(ODD_NETS)
    (shop / "my_data.py").write_text(DATA)
    (shop / "space.yaml").write_text(yaml.safe_dump(SPACE))
    (shop / "config.yaml").write_text(yaml.safe_dump(shop.config))


def _data(shop: Shop) -> None:
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    cifar = shop / "cifar"
    cifar.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        data = random.integers(0, 256, (20, 3072)).astype(np.uint8)
        record = {b"data": data, b"labels": [i % 10 for i in range(20)]}
        (cifar / name).write_bytes(pickle.dumps(record, protocol=4))
    (cifar / "batches.meta").write_bytes(pickle.dumps({b"num_cases_per_batch": 20}, protocol=2))
    fashion = shop / "fashion"
    fashion.mkdir()
    for part, count in (("train", 40), ("t10k", 20)):
        for what, values in (
            ("images-idx3", random.integers(0, 256, (count, 28, 28))),
            ("labels-idx1", np.arange(count) % 10),
        ):
            head = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            content = gzip.compress(head + values.astype(np.uint8).tobytes())
            (fashion / f"{part}-{what}-ubyte.gz").write_bytes(content)
    for row in range(20):
        file = shop / "images" / "ab"[row % 2] / f"{row}.{('png', 'jpg')[row // 2 % 2]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(file)


def _weights(shop: Shop) -> None:
    import torch
    from safetensors.torch import save_file

    state = _state(shop)
    torch.save(state, shop / "weights.pt")
    torch.save(state, shop / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": state, "epoch": 3}, shop / "checkpoint.pth")
    save_file(state, str(shop / "weights.safetensors"))


def _state(shop: Shop) -> dict[str, Any]:
    import torch

    from autosparse import models

    torch.manual_seed(0)
    return dict(models.resolve(shop.model).module.state_dict())


def _databases(shop: Shop) -> None:
    from autosparse.database import TuningDatabase, export_rows
    from autosparse.records import Measurement, MeasurementKey, Status

    url = f"sqlite:///{shop / 'tuning.db'}"
    rows = [
        Measurement(
            key=MeasurementKey(
                hardware_id="cpu-a", kernel=kernel, kernel_hash="h", shape="conv2d_b1", pattern="1x16",
                kept=kept, config="", dtype="f32", threads=1, policy="p",
            ),
            status=Status.OK, median_us=9.0, ci_low_us=8.0, ci_high_us=9.5, repeats=20, sparsity=0.75,
            flops_kept=3_000_000_000, version="0.1.0",
        )
        for kernel in ("a", "b")
        for kept in range(6)
    ]  # fmt: skip
    with TuningDatabase(url) as database:
        database.put_all(rows)
        database.engine.dispose()
    export_rows(url, shop / "rows.csv")
    export_rows(url, shop / "rows.json")


def _run(shop: Shop) -> None:
    """A finished run of the small net, as a search leaves it; the numbers are made up."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
    from made_up_run import write_run  # type: ignore[import-not-found]

    from autosparse import hardware
    from autosparse.plans.plan import Plan
    from autosparse.records import LayerChoice, onexn
    from autosparse.run_folders import RunFolder

    plan = Plan(model=shop.model, layers={"2": LayerChoice(pattern=onexn(8), sparsity=0.5)})

    def edit(document: dict[str, Any]) -> None:
        document.update(model=shop.model, input_shape=[3, 16, 16], threads=1, baselines=[])
        document["hardware_id"] = hardware.detect().hardware_id
        for config in document["configs"]:
            config["id"] = plan.id
            config["plan"] = "configs/small.yaml"
            config["layers"] = [{**config["layers"][1], "name": "2"}]
        document["calibration"]["points"] = [{**document["calibration"]["points"][0], "id": plan.id}]
        document["verdict"]["id"] = plan.id

    made = write_run(shop / "made", configs=1, trials=9, edit=edit)
    plan.save(made / "configs" / "small.yaml")
    plan.save(shop / "plan.yaml")
    (made / "config.yaml").write_text(
        json.dumps({**shop.config, "weights": str(shop / "weights.safetensors")})
    )
    with RunFolder.create(
        shop / "results",
        model=shop.model,
        hardware_id="473c12675079",
        config_yaml=(made / "config.yaml").read_text(),
        fingerprint="f",
        budget_ms=5.0,
    ) as run:
        run.enter("report")
        for file in made.rglob("*"):
            target = run.path / file.relative_to(made)
            if file.is_file():
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(file.read_bytes())
        run.finish("done", 0, "it is done")


def _artifact(shop: Shop) -> None:
    import torch

    import autosparse
    from autosparse import models

    module = models.resolve(shop.model).module
    autosparse.export(module, (torch.zeros(1, 3, 16, 16),), shop / "model.autosparse", threads=1)


def _home(shop: Shop) -> None:
    """A home in which this machine's limits are known."""
    import os

    from autosparse.measuring import limits

    os.environ["AUTOSPARSE_HOME"] = str(shop / "home")
    limits.profile()
