"""Which probes make a state is for the host's own history to say."""

from __future__ import annotations

import numpy as np
import pytest

from autosparse import hardware
from autosparse.errors import UsageError
from autosparse.kernels.probes import probe_handover_ns
from autosparse.measuring import histories
from autosparse.measuring.histories import keep, load_histories, prober_for, save_history
from autosparse.measuring.states import (
    APART,
    NEAR,
    UNKNOWN,
    History,
    Prober,
    in_state,
    label_of,
    split_of,
)


def drawn(*modes: tuple[float, float, int], seed: int = 0) -> list[float]:
    """Draws probes of modes (median, relative spread, count), shuffled."""
    generator = np.random.default_rng(seed)
    values = np.concatenate(
        [median * np.exp(spread * generator.standard_normal(count)) for median, spread, count in modes]
    )
    generator.shuffle(values)
    return [float(value) for value in values]


class TestSplit:
    @pytest.mark.parametrize(
        "modes",
        [
            ((47, 0.07, 300), (240, 0.03, 200)),  # one and two complexes of a server
            ((47, 0.07, 500), (240, 0.03, 6)),  # the other state is seldom
            ((9, 0.1, 100), (35, 0.1, 100)),  # siblings of one core, and two cores
            ((110, 0.03, 100), (165, 0.03, 100)),  # dies of one package
            ((1_000, 0.1, 50), (4_000, 0.1, 50)),  # whatever the machine's unit is
        ],
    )
    def test_two_modes_are_divided_between_them(self, modes) -> None:
        for seed in range(5):
            split = split_of(drawn(*modes, seed=seed))
            assert split is not None
            assert modes[0][0] * 1.05 < split < modes[1][0] * 0.95

    @pytest.mark.parametrize(
        "modes",
        [
            ((240, 0.03, 300),),
            ((240, 0.3, 300),),  # wide, but one
            ((100, 0.05, 100), (112, 0.05, 100)),  # nothing that matters
            ((50, 0.35, 100), (100, 0.35, 100)),  # no gap
            ((47, 0.07, 300), (240, 0.03, 2)),  # seen twice
            ((95, 0.03, 500), (176, 0.03, 4)),  # a neighbour who held up four of five hundred
        ],
    )
    def test_one_mode_is_not(self, modes) -> None:
        for seed in range(5):
            assert split_of(drawn(*modes, seed=seed)) is None

    def test_probes_that_waited_for_a_processor_are_no_state(self) -> None:
        assert split_of(drawn((47, 0.07, 300), (60_000, 0.1, 100))) is None

    def test_a_few_probes_between_the_modes_do_not_hide_them(self) -> None:
        mixed = [*drawn((47, 0.07, 200), (240, 0.03, 200)), 90.0, 120.0, 160.0]
        split = split_of(mixed)
        assert split is not None
        assert 60 < split < 220

    @pytest.mark.parametrize("values", [[], [47.0], [47.0, 240.0] * 2, [-1.0, 0.0] * 9])
    def test_too_few(self, values: list[float]) -> None:
        assert split_of(values) is None


def test_labels() -> None:
    assert [label_of(ns, 100.0) for ns in (45.0, 100.0, 101.0, 20_000.0)] == [
        NEAR,
        NEAR,
        APART,
        UNKNOWN,
    ]
    assert label_of(None, 100.0) == label_of(45.0, None) == ""


def test_all_states_are_one_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSPARSE_HOST_STATES", "one")
    assert {label_of(ns, 100.0) for ns in (50.0, 200.0, None)} == {""}
    assert label_of(1e6, 100.0) == UNKNOWN
    seen = History(handovers_ns=(50.0, 200.0), split_ns=100.0)
    assert seen.shares() == {"": 1.0} and seen.usual == ""


class TestHistory:
    def test_a_split_once_found_stays(self) -> None:
        both = History().grown(drawn((47, 0.07, 60), (240, 0.03, 60)))
        later = both.grown(drawn((240, 0.03, 2_000)))
        assert later.split_ns == pytest.approx(both.split_ns, rel=0.05)
        assert len(later.handovers_ns) == 512
        assert later.usual == APART
        assert later.typical_ns(APART) == pytest.approx(240, rel=0.02)
        assert later.typical_ns(NEAR) is None

    def test_shares(self) -> None:
        found = History(handovers_ns=(45.0,) * 30 + (240.0,) * 10 + (5e4,), split_ns=100.0)
        assert found.shares() == {NEAR: 0.75, APART: 0.25}
        assert History().shares() == {}
        assert History().usual == ""

    def test_it_is_kept_per_number_of_threads(self) -> None:
        two, four = History(handovers_ns=(45.0, 240.0), split_ns=100.0), History(handovers_ns=(80.0,))
        save_history("host", 2, two)
        save_history("host", 4, four)
        assert load_histories("host") == {2: two, 4: four}
        assert load_histories("other") == {}

    @pytest.mark.parametrize("content", ["", "{", "[1]", '{"two": {}}', '{"2": {"ns": 1}}', '{"2": 7}'])
    def test_a_damaged_one_starts_anew(self, content: str) -> None:
        save_history("host", 2, History(handovers_ns=(45.0,)))
        histories.history_file("host").write_text(content)
        assert load_histories("host") == {}


class TestProber:
    def test_a_host_that_is_hardly_known_is_watched_first(self) -> None:
        seen = iter(drawn((47, 0.07, 20), (240, 0.03, 20)))
        prober = Prober(4, probe=lambda threads: next(seen), rest=lambda seconds: None)
        prober.learn()
        assert len(prober.history.handovers_ns) == 40
        assert prober.history.split_ns is not None
        assert prober.taken_ns == []
        prober.probe = lambda threads: 60.0 * threads
        assert str(prober()) == "apart, 240 ns per hand-over"

    def test_calls_are_repeated_until_the_host_stays_in_the_state(self) -> None:
        trace = iter([240.0, 45.0, 240.0, 240.0, 45.0, 45.0])
        prober = Prober(2, History(split_ns=100.0), lambda threads: next(trace), lambda seconds: None)
        calls: list[int] = []
        assert in_state(prober, NEAR, lambda: calls.append(1) or len(calls)) == 2
        assert in_state(None, NEAR, lambda: 7) == 7

    def test_one_thread_has_one_state_and_a_pace(self) -> None:
        prober = prober_for(1)
        assert prober is not None
        found = prober()
        assert (found.label, found.handover_ns) == ("", None)
        assert len(prober.history.paces) >= 40
        assert prober_for(hardware.usable_cores() + 1) is None
        keep(None)


def test_the_real_probe_tells_a_hand_over() -> None:
    """On any machine a line takes longer than a cycle, and less than a scheduler's slice."""
    found = probe_handover_ns(2)
    assert found > 0.1
    if hardware.usable_cores() >= 2:
        assert min(probe_handover_ns(2) for _ in range(20)) < 10_000
    assert probe_handover_ns(3, 9) > 0.1


@pytest.mark.parametrize(("threads", "slices"), [(1, 64), (0, 64), (-3, 64), (2, 8), (5_000, 64)])
def test_the_real_probe_refuses_what_it_cannot_do(threads: int, slices: int) -> None:
    with pytest.raises(UsageError, match=f"but got {threads} and {slices}"):
        probe_handover_ns(threads, slices)


def test_this_host_is_learnt_and_kept() -> None:
    if hardware.usable_cores() < 2:
        pytest.skip("one usable core has no states")
    prober = prober_for(2)
    assert prober is not None
    keep(prober)
    known = load_histories(hardware.hardware_id())[2]
    assert len(known.paces) >= 40
    assert 0 < len(known.handovers_ns) <= len(known.paces)
