"""A made-up machine for tests of the tuner: layers, a request, and what a tuning of it must find."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from autosparse.database import TuningDatabase
from autosparse.measuring.stopwatch import LAYERS
from autosparse.progress import Progress
from autosparse.records import onexn
from autosparse.tuning import narrowing as reasons
from autosparse.tuning.autotune import TuneRequest, TuneResult, tune
from autosparse.workers.worker import Worker

sys.path.insert(0, str(Path(__file__).parent))
from fake_runners import true_us
from tuning_layers import HOST, MadeUp, conv, fake_kernels, info, linear

FOLDER = Path(__file__).parent

SPARSITIES = (0.5, 0.625, 0.75, 0.875, 0.9375)
LAYER_LIST = (
    info("stem", conv(3, 56, out_channels=32)),
    info("a.conv1", conv(32, 56, activation="relu")),
    info("a.conv2", conv(32, 56, activation="relu", residual=True)),
    info("b.conv1", conv(32, 56, activation="relu")),
    info("c.conv1", conv(64, 28)),
    info("d.conv1", conv(128, 14)),
    info("head", linear(512, 64)),
    info("kept", conv(48, 28), "excluded by name"),
    info("norm", None, "layer_norm is no convolution"),
)
REQUEST = TuneRequest(
    layers=LAYER_LIST,
    patterns=(onexn(8), onexn(16), onexn(32)),
    sparsities=SPARSITIES,
    policy=replace(LAYERS.for_model(1 << 25), timeout_s=5.0),
)


@dataclass
class Bench:
    """A database, made-up kernels, and a measuring process that notes what it was asked."""

    folder: Path
    control: Path
    shared: Worker
    hashes: dict[str, str] = field(default_factory=dict)

    def settings(
        self,
        seconds: float = 0.0,
        failures: dict[str, str] | None = None,
        changes_after: int | None = None,
        away_s: float = 60.0,
    ) -> None:
        values = {
            "log": str(self.log),
            "seconds": seconds,
            "failures": failures or {},
            "changes_after": changes_after,
            "away_s": away_s,
        }
        (self.control / "synthetic.json").write_text(json.dumps(values))

    @property
    def log(self) -> Path:
        return self.folder / "jobs.log"

    @property
    def jobs(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def device(self) -> MadeUp:
        return MadeUp(HOST, self.hashes)

    def database(self) -> TuningDatabase:
        return TuningDatabase(str(self.folder / "t.db"), current_hashes=dict)

    def tune(self, request: TuneRequest = REQUEST, progress: Progress | None = None) -> TuneResult:
        return tune(
            request,
            self.device,
            self.database(),
            progress=progress,
            worker=self.shared,
        )


def is_accounted_for(result: TuneResult) -> bool:
    skipped = sum(skip.count for skip in result.skipped)
    return result.considered == result.timed + result.reused + skipped


def truth(shape, block_n: int, kept: int) -> float:
    """Gives the fastest true latency of a structure."""
    pattern = onexn(block_n) if block_n else reasons.DENSE
    return min(true_us(k.name, shape.to_json(), kept) for k in fake_kernels(shape, pattern))
