"""What a tuning finds known is used again: after a kill, a stop, and changes that do not touch it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tuning_bench import FOLDER, REQUEST, Bench
from tuning_layers import HOST, MadeUp

from autosparse.errors import Stopped
from autosparse.progress import Progress
from autosparse.records import onexn
from autosparse.tuning.autotune import tune


@pytest.mark.smoke
def test_a_second_run_times_nothing(bench: Bench) -> None:
    first = bench.tune()
    jobs = len(bench.jobs)
    second = bench.tune()
    assert len(bench.jobs) == jobs
    assert (second.timed, second.reused) == (0, first.timed)
    assert second.options == first.options
    assert second.skipped == first.skipped


def test_rows_of_other_hosts_and_thread_counts_are_not_touched(bench: Bench) -> None:
    bench.tune()
    before = bench.database().rows()
    other = replace(HOST, hardware_id="other-host")
    result = tune(REQUEST, MadeUp(other), bench.database(), worker=bench.shared)
    assert result.reused == 0
    threads = bench.tune(replace(REQUEST, threads=2))
    assert threads.reused == 0
    rows = bench.database().rows()
    assert rows[: len(before)] == before
    assert Counter(row.key.hardware_id for row in rows)["other-host"] == result.timed


def test_a_changed_kernel_is_measured_again_and_no_other(bench: Bench) -> None:
    first = bench.tune()
    bench.log.unlink()
    bench.hashes["f32_conv_onexn16__avx512_px16x48"] = "h2"
    second = bench.tune()
    assert second.timed > 0
    assert {job.split()[0] for job in bench.jobs} == {"f32_conv_onexn16__avx512_px16x48"}
    assert second.options == first.options


def test_another_n_adds_rows_and_invalidates_none(bench: Bench) -> None:
    first = bench.tune(replace(REQUEST, patterns=(onexn(16),)))
    second = bench.tune(replace(REQUEST, patterns=(onexn(16), onexn(32))))
    assert second.reused == first.timed
    assert second.timed > 0


KILLED = """
import sys
sys.path.insert(0, {here!r})
from tuning_bench import FOLDER, Bench, Worker
from pathlib import Path
control = Path({control!r})
Bench(Path({folder!r}), control, Worker("fake_runners:synthetic", import_path=[control, FOLDER])).tune()
"""


@pytest.mark.parametrize("rows", [1, 25, 80])
def test_a_killed_run_resumes_where_it_was(bench: Bench, tmp_path: Path, rows: int) -> None:
    bench.settings(seconds=0.005)
    code = KILLED.format(here=str(FOLDER), folder=str(bench.folder), control=str(bench.control))
    process = subprocess.Popen([sys.executable, "-c", code])
    while len(bench.jobs) < rows:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()

    bench.settings()
    stored = len(bench.database().rows())
    assert stored >= rows - 1
    result = bench.tune()
    assert result.reused == stored
    twice = [job for job, times in Counter(bench.jobs).items() if times > 1]
    assert len(twice) <= 1  # the one in flight
    rows_after = len(bench.database().rows())
    assert rows_after == result.reused + result.timed

    bench.log.unlink()
    whole = replace(bench, folder=tmp_path / "whole")
    whole.folder.mkdir()
    whole.settings()
    expected = whole.tune()
    assert expected.timed == rows_after
    assert expected.options == result.options


def test_a_stop_is_heeded_between_measurements_and_the_same_call_goes_on(bench: Bench) -> None:
    with pytest.raises(Stopped):
        bench.tune(progress=Progress(should_stop=lambda: len(bench.database().rows()) >= 10))
    assert len(bench.database().rows()) == 10
    result = bench.tune()
    assert result.reused == 10
    assert len(bench.jobs) == len(set(bench.jobs))


def test_a_stop_is_heeded_in_the_middle_of_a_measurement(bench: Bench) -> None:
    bench.settings(seconds=60)
    with pytest.raises(Stopped):
        bench.tune(progress=Progress(should_stop=lambda: len(bench.jobs) >= 1))
    assert bench.database().rows() == []
    bench.settings()
    assert bench.tune().reused == 0
    twice = [job for job, times in Counter(bench.jobs).items() if times > 1]
    assert len(twice) == 1  # the one that was stopped
