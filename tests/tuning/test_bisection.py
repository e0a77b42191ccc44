"""Break-even rows through the tuner's own measuring path, with made-up latencies."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autosparse.database import TuningDatabase
from autosparse.errors import Stopped, UsageError
from autosparse.measuring.stopwatch import LAYERS
from autosparse.plans.break_even import Verdict, break_even
from autosparse.progress import Progress
from autosparse.records import DENSE, kept_blocks, onexn
from autosparse.tuning.autotune import TuneRequest, tune
from autosparse.tuning.bisection import Bisected, bisect
from autosparse.workers.worker import Worker

sys.path.insert(0, str(Path(__file__).parent))
from fake_runners import true_us
from tuning_layers import DEVICE, conv, fake_kernels, info

FOLDER = Path(__file__).parent
GRID = tuple(step / 16 for step in range(1, 16))
WIDE, SMALL = conv(64, 28), conv(128, 14)
REQUEST = TuneRequest(
    layers=(info("a", WIDE), info("b", SMALL), info("c", WIDE), info("kept", conv(48, 28), "grouped")),
    patterns=(onexn(8), onexn(16)),
    sparsities=GRID,
    policy=replace(LAYERS.for_model(1 << 25), timeout_s=5.0),
)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    settings = {"log": str(tmp_path / "jobs.log"), "seconds": 0.0, "failures": {}}
    (tmp_path / "synthetic.json").write_text(json.dumps(settings))
    with Worker("fake_runners:synthetic", import_path=[tmp_path, FOLDER]) as running:
        yield running


@pytest.fixture
def database(tmp_path: Path) -> TuningDatabase:
    return TuningDatabase(str(tmp_path / "t.db"), current_hashes=dict)


def run(
    worker: Worker, database: TuningDatabase, request: TuneRequest = REQUEST, **more: Progress
) -> Bisected:
    return bisect(request, DEVICE, database, worker=worker, **more)


def true_break_even(shape, block_n: int) -> float:
    """Gives the least sparsity of the grid at which the made-up latencies win beyond their interval."""

    def best(pattern, kept: int) -> float:
        return min(true_us(k.name, shape.to_json(), kept) for k in fake_kernels(shape, pattern))

    dense = best(DENSE, -1)
    wins = [
        s for s in GRID if 1.01 * best(onexn(block_n), kept_blocks(shape.in_channels, s)) < 0.99 * dense
    ]
    return min(wins)


def test_it_finds_the_true_break_even_of_every_shape(worker: Worker, database: TuningDatabase) -> None:
    found = run(worker, database)
    cells = {(cell.shape, cell.pattern): cell for cell in break_even(found.rows)}
    for shape in (WIDE, SMALL):
        for block_n in (8, 16):
            cell = cells[shape.key, f"1x{block_n}"]
            assert cell.verdict is Verdict.WINS
            assert cell.sparsity == true_break_even(shape, block_n)
            assert len(cell.points) <= 4  # of fifteen
    # A layer that must stay dense has a dense row and no other.
    assert cells[conv(48, 28).key, "1x8"].verdict is Verdict.UNMEASURED


def test_rows_are_stored_and_reused(worker: Worker, database: TuningDatabase, tmp_path: Path) -> None:
    first = run(worker, database)
    jobs = (tmp_path / "jobs.log").read_text()
    again = run(worker, database)
    assert (tmp_path / "jobs.log").read_text() == jobs
    assert first.timed == again.reused > 0 == again.timed
    assert sorted(map(repr, again.rows)) == sorted(map(repr, first.rows))
    assert len(database.rows()) == first.timed


def test_rows_of_a_search_serve_the_map(worker: Worker, database: TuningDatabase) -> None:
    search = replace(REQUEST, sparsities=(0.5, 0.75))
    tune(search, DEVICE, database, worker=worker)
    assert run(worker, database).reused > 0


def test_sparsities_that_prune_nothing_are_left_out(worker: Worker, database: TuningDatabase) -> None:
    few = replace(REQUEST, layers=(info("few", conv(4, 8)),))
    found = run(worker, database, few)
    assert {row.sparsity for row in found.rows if not row.is_dense} <= {s for s in GRID if s >= 0.25}


def test_a_stop_keeps_what_was_measured(worker: Worker, database: TuningDatabase) -> None:
    asked = iter([False] * 3 + [True] * 99)
    with pytest.raises(Stopped):
        run(worker, database, progress=Progress(should_stop=lambda: next(asked)))
    assert database.rows()


def test_more_threads_than_cores_are_refused(worker: Worker, database: TuningDatabase) -> None:
    with pytest.raises(UsageError, match="threads must not exceed"):
        run(worker, database, replace(REQUEST, threads=99))
