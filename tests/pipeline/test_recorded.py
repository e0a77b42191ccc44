"""A search for a host that is not there, from its profile and its rows: nothing is run or timed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from autosparse import database as tuning
from autosparse import hardware
from autosparse.config import SearchConfig
from autosparse.errors import ConfigError, UsageError
from autosparse.hosts.recorded import RecordedHost
from autosparse.measuring import limits, stopwatch
from autosparse.progress import Progress


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    file = tmp_path / "host.json"
    file.write_text(json.dumps(limits.profile().to_json()))
    return file


def test_a_search_from_rows_alone(
    shop: Any, rows_known: None, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{shop.home}/tuning.db"
    before = len(tuning.list_rows(url))
    monkeypatch.setattr(stopwatch, "measure", lambda *args, **kwargs: pytest.fail("timed"))
    done = shop.search("--host", f"recorded:{profile}", "--train", "none", "--json")
    assert done.returncode == 0, done.stderr
    assert len(tuning.list_rows(url)) == before
    document = json.loads(done.stdout)
    assert document["recorded"] == hardware.detect().cpu.model
    assert document["dense"]["latency"] is None and not document["dense"].get("peers")
    text = document["verdict"]["text"]
    assert "(not measured" in text and "No model was run: latencies are sums of rows" in text
    assert document["configs"]
    for config in document["configs"]:
        assert config["measured_latency_ms"] is None and config["speedup"] is None
        layers_us = [layer["predicted_us"] for layer in config["layers"]]
        assert config["predicted_latency_ms"] == pytest.approx(sum(layers_us) / 1e3)
        assert all(layer["measured_us"] is None for layer in config["layers"])
    assert (shop.latest / "report.html").is_file()


def test_what_has_no_row_is_left_out(shop: Any, profile: Path, tmp_path: Path) -> None:
    home = tmp_path / "empty"
    home.mkdir()
    bare = dataclasses.replace(shop, home=home)
    done = bare.search("--host", f"recorded:{profile}", "--train", "none")
    assert done.returncode == 2
    assert "must have rows of every layer" in done.stderr and "conv2" in done.stderr
    assert not list((shop.folder / "results").glob("*/weights")), "told before any work"


def test_it_is_another_run_than_one_that_measures(profile: Path) -> None:
    here, there = (
        SearchConfig(model="resnet20", host=host) for host in ("here", f"recorded:{profile}")
    )
    assert here.fingerprint() != there.fingerprint()


def test_nothing_runs_there(profile: Path) -> None:
    host = RecordedHost(profile)
    assert not host.runs
    with pytest.raises(UsageError, match="is not here; run this on that host"):
        host.time_whole("a:b", {}, step="", limit_s=1.0, progress=Progress())


@pytest.mark.parametrize("content", ["", "[]", '{"hardware_id": 3}', '{"model": "x"}'])
def test_what_is_no_profile_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "profile.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match="autosparse profile --json"):
        RecordedHost(file)
    with pytest.raises(ConfigError, match="autosparse profile --json"):
        RecordedHost(tmp_path / "missing.json")
