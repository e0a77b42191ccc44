"""Dense baselines: trained once, found again, keyed by what matters; and the presets."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from autosparse import data, models
from autosparse.errors import Stopped, UsageError
from autosparse.progress import Progress
from autosparse.storage import paths
from autosparse.storage.locks import exclusive
from autosparse.train.baseline import baseline
from autosparse.train.evaluate import accuracy
from autosparse.train.presets import TUNED, dense, for_method, full, paper, short
from autosparse.train.recipes import Recipe

NET = f"{Path(__file__).parent / 'tiny_net.py'}:make"
QUICK = Recipe(kind="dense", epochs=3, method="dense", lr=0.1)


def make(**changes):
    arguments = {"resolution": 8, "recipe": QUICK, "threads": 1, **changes}
    return baseline(changes.pop("model", NET), "digits", **arguments)


def test_trained_once_and_found_again():
    events = []
    first = make(progress=Progress(events.append))
    assert [e.message[:7] for e in events if e.message.startswith("epoch")] == [
        "epoch 1",
        "epoch 2",
        "epoch 3",
    ]
    again = make(progress=Progress(events.append))
    assert again == first
    assert sum(e.message.startswith("epoch") for e in events) == 3
    assert Path(first.weights).is_relative_to(paths.home() / "baselines")
    assert (first.accuracy.kind, first.accuracy.split) == ("dense", "test")
    module = models.resolve(NET, classes=10, weights=Path(first.weights)).module
    assert accuracy(module, data.resolve("digits", resolution=8).test) == first.accuracy.value


def test_images_that_the_caller_has_are_not_read_again(monkeypatch):
    first = make()
    images = data.resolve("digits", resolution=8)
    monkeypatch.setattr(data, "resolve", None)
    assert make(images=images) == first


def test_everything_that_matters_is_in_the_key(tmp_path):
    copy = tmp_path / "copied_net.py"
    copy.write_text(Path(NET.rpartition(":")[0]).read_text())
    found = [
        make().weights,
        make(seed=1).weights,
        make(resolution=9).weights,
        make(recipe=Recipe(kind="dense", epochs=1, method="dense")).weights,
        baseline(f"{copy}:make", "digits", resolution=8, recipe=QUICK, threads=1).weights,
    ]
    copy.write_text(copy.read_text().replace("Dropout(0.1)", "Dropout(0.2)"))
    found.append(baseline(f"{copy}:make", "digits", resolution=8, recipe=QUICK, threads=1).weights)
    assert len(set(found)) == len(found)


def test_a_stopped_baseline_goes_on():
    done = []

    def sink(event):
        if event.message.startswith("epoch"):
            done.append(event.message)

    with pytest.raises(Stopped):
        make(progress=Progress(sink, should_stop=lambda: len(done) == 2))
    make(progress=Progress(sink))
    assert [m[:7] for m in done] == ["epoch 1", "epoch 2", "epoch 3"]


def test_the_lock_waits_for_its_holder_and_dies_with_it(tmp_path):
    path = tmp_path / "lock"
    hold = (
        "import fcntl, sys, time\n"
        f"file = open({str(path)!r}, 'a'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        said = []
        progress = Progress(lambda e: said.append(e.message), should_stop=lambda: len(said) > 0)
        with pytest.raises(Stopped), exclusive(path, progress):
            pytest.fail("the lock was held by another process")
        assert "waiting for another process" in said[0]
        threading.Timer(0.3, holder.kill).start()
        with exclusive(path, Progress()):
            assert holder.wait(5) != 0


def test_presets_scale_with_the_data():
    assert [dense(n).epochs for n in (100, 1_151, 45_000)] == [10, 10, 26]
    assert [short(n).epochs for n in (1_151, 45_000)] == [4, 4]
    assert full(1_281_167).epochs == 251
    assert full(45_000).from_scratch and not short(45_000).from_scratch
    for samples in (1, 1_151, 45_000, 1_281_167):
        for recipe in (dense(samples), short(samples), full(samples)):
            assert recipe.first_final_epoch < recipe.epochs
    assert {r.kind for r in (dense(10), short(10), full(10))} == {"dense", "short", "full"}
    assert short(10, seed=4).seed == 4
    rules = short(1_151).rules
    assert rules.enforced(0, 4) == 0.5 and rules.enforced(1, 4) == 1.0
    with pytest.raises(UsageError, match="samples"):
        short(0)


def test_the_papers_preset_follows_the_published_schedule():
    recipe = paper(1_281_167)
    assert (recipe.lr, recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.1, 0.9, False, 1e-4)
    rules = recipe.rules
    assert (rules.decay, rules.tau, recipe.label_smoothing, rules.ramp) == (2e-4, 1.0, 0.1, "cubic")
    assert (rules.criterion, rules.alpha, rules.regrow, rules.soft) == ("bpar", 1.0, "importance", True)
    assert rules.enforced(10, 251) == 0.0
    assert rules.enforced(95, 251) == pytest.approx(0.125, abs=0.01)  # an eighth at half way
    assert recipe.first_final_epoch == 181


def test_full_differs_from_the_paper_in_what_was_tuned_alone():
    ours, theirs = full(1_281_167).to_json(), paper(1_281_167).to_json()
    differing = {key for key in theirs["settings"] if ours["settings"][key] != theirs["settings"][key]}
    assert differing == set(TUNED)
    assert {**ours, "settings": None} == {**theirs, "settings": None}
    assert full(1_281_167).rules.enforced(95, 251) == pytest.approx(0.875, abs=0.01)
    assert for_method("subp", 10) == full(10)
