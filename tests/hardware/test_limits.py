"""Machine limits: the best of several probes, measured once, kept per host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autosparse import hardware
from autosparse.errors import RunError, Stopped
from autosparse.kernels import binding
from autosparse.measuring import limits
from autosparse.progress import Progress, ProgressEvent


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replaces the native probes; their figures rise and fall like a busy machine's."""
    asked: list[tuple[str, int]] = []
    noise: Iterator[float] = iter([0.9, 1.0, 0.8] * 100)

    def f32(threads: int, seconds: float) -> float:
        asked.append(("f32", threads))
        return 100.0 * threads * next(noise)

    def bf16(threads: int, seconds: float) -> float | None:
        asked.append(("bf16", threads))
        return None

    def read(size: int, seconds: float) -> float:
        asked.append(("read", size))
        return 5e9 * next(noise)

    monkeypatch.setattr(binding, "probe_f32_gflops", f32)
    monkeypatch.setattr(binding, "probe_bf16_gflops", bf16)
    monkeypatch.setattr(binding, "probe_read_bytes_per_s", read)
    return asked


def test_the_best_of_three_counts(probes: list[tuple[str, int]]) -> None:
    cpu = limits.profile().cpu
    assert cpu.f32_gflops_core == pytest.approx(100.0)
    assert cpu.f32_gflops_all == pytest.approx(100.0 * cpu.cores_usable)
    assert cpu.bf16_gflops_core is None
    assert set(cpu.read_gbytes_per_s.values()) == {5.0}
    assert "dram" in cpu.read_gbytes_per_s
    assert probes.count(("f32", 1)) >= limits.REPEATS


def test_figures_are_kept_until_a_refresh(probes: list[tuple[str, int]]) -> None:
    first = limits.profile()
    count = len(probes)
    assert limits.profile() == first == hardware.detect()
    assert len(probes) == count
    limits.profile(refresh=True)
    assert len(probes) == 2 * count


def test_figures_that_shall_not_be_kept_leave_no_trace(
    probes: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOSPARSE_HOME", str(tmp_path / "home"))
    assert limits.profile(keep=False).cpu.f32_gflops_core == pytest.approx(100.0)
    assert list(tmp_path.iterdir()) == []
    assert hardware.detect().cpu.f32_gflops_core is None


def test_a_home_that_cannot_be_written_is_refused_before_measuring(
    probes: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOSPARSE_HOME", "/proc/nowhere")
    with pytest.raises(RunError, match="AUTOSPARSE_HOME must be a writable folder"):
        limits.profile()
    assert probes == []


def test_a_stop_leaves_nothing_half_measured(probes: list[tuple[str, int]]) -> None:
    with pytest.raises(Stopped):
        limits.profile(progress=Progress(should_stop=lambda: len(probes) >= 6))
    assert hardware.detect().cpu.f32_gflops_core is None


def test_every_probe_is_one_unit_of_progress(probes: list[tuple[str, int]]) -> None:
    events: list[ProgressEvent] = []
    limits.profile(progress=Progress(events.append))
    assert (events[0].kind, events[-1].kind) == ("start", "end")
    assert events[-1].done == events[-1].total


def test_buffers_lie_in_their_level() -> None:
    cpu = replace(hardware.describe().cpu, l1d_bytes=48 << 10, l2_bytes=2 << 20, l3_bytes=105 << 20)
    sizes = limits.buffer_sizes(cpu)
    assert sizes == {"l1": 24 << 10, "l2": 1 << 20, "l3": (105 << 20) // 2, "dram": 420 << 20}
    no_l3 = limits.buffer_sizes(replace(cpu, l3_bytes=0))
    assert "l3" not in no_l3
    assert no_l3["dram"] == 128 << 20
    assert "l3" not in limits.buffer_sizes(replace(cpu, l3_bytes=2 << 20))


def test_real_figures_are_plausible() -> None:
    core = max(binding.probe_f32_gflops(1, 0.02) for _ in range(3))
    assert 0.5 < core < 5000
    near = max(binding.probe_read_bytes_per_s(16 << 10, 0.02) for _ in range(3))
    far = max(binding.probe_read_bytes_per_s(128 << 20, 0.02) for _ in range(3))
    assert near > far > 1e8
