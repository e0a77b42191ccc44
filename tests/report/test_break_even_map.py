"""The break-even map of a report comes from the rows of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from autosparse.report import break_even, build, words
from autosparse.report.source import read

RunWriter = Callable[..., Path]


@pytest.fixture(autouse=True)
def light_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "window.Plotly = {};")


def with_table(run: Path, *lines: str) -> Path:
    head = "layer,shape,label,kernel,dtype,threads,median_us,ci_low_us,ci_high_us,flops_kept"
    (run / "latency_table.csv").write_text("\n".join([head, *lines]) + "\n")
    return run


def rows(layer: str, shape: str, label: str, us: float, dtype: str = "f32") -> str:
    return f"{layer},{shape},{label},k,{dtype},2,{us},{us * 0.99},{us * 1.01},1"


def test_the_map_shows_every_shape_with_sparse_rows(make_run: RunWriter) -> None:
    run = with_table(
        make_run(),
        rows("stem", "first", "dense", 50),
        rows("a", "s", "dense", 100),
        rows("a", "s", "1x8@0.5", 120),
        rows("a", "s", "1x8@0.75", 60),
        rows("a", "s", "1x16@0.5", 55),
        rows("b", "s", "dense", 100),
        rows("b", "s", "1x8@0.75", 60),
        rows("c", "t", "dense", 100),
        rows("c", "t", "1x8@0.75", 100),
        rows("c", "t", "dense", 40, "bf16"),
        rows("c", "t", "1x8@0.75", 30, "bf16"),
    )
    found = break_even.view(read(run))
    assert found is not None
    assert found.patterns == ("1x8", "1x16")
    assert [(line.shape, line.dtype, line.layers) for line in found.lines] == [
        ("s", "f32", ("a", "b")),
        ("t", "f32", ("c",)),
        ("t", "bf16", ("c",)),
    ]
    texts = [[cell.text for cell in line.cells] for line in found.lines]
    at_most = words.AT_MOST
    assert texts == [
        ["75.0 %", f"{at_most}50.0 %"],
        ["no gain", words.NONE],
        [f"{at_most}75.0 %", words.NONE],
    ]
    assert found.lines[0].cells[0].title.startswith("50.0 %: 0.833")
    assert [cell.heat for cell in found.lines[0].cells] == [2, 5]
    assert found.lines[1].cells[0].heat == 0


def test_the_page_holds_the_map(make_run: RunWriter) -> None:
    page = build(make_run()).read_text()
    assert 'id="break-even"' in page
    section = page.partition('<section id="break-even">')[2].partition("</section>")[0]
    assert section.count("<tr>") > 2
    assert "1\N{MULTIPLICATION SIGN}16" in section


@pytest.mark.parametrize("without", [True, False])
def test_without_rows_the_page_says_so(make_run: RunWriter, without: bool) -> None:
    run = make_run()
    if without:
        (run / "latency_table.csv").unlink()
    else:
        with_table(run, rows("a", "s", "dense", 100))
    assert break_even.view(read(run)) is None
    page = build(run).read_text()
    expected = "is not in the run folder" if without else "holds no sparse rows"
    assert "No map: latency_table.csv " + expected in page
