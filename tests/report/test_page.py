from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from autosparse.errors import RunError
from autosparse.pipeline.results.outcomes import TrainOutcome
from autosparse.report import build, words
from autosparse.report.document import Document, load
from autosparse.report.layers import totals, views
from autosparse.report.source import read
from autosparse.report.verdict import speedup

RunWriter = Callable[..., Path]
HOSTILE = "<script>alert('x')</script>\"'&<img src=x onerror=alert(1)>"
EMPTY: dict[str, Any] = {
    "baselines": [],
    "predicted_front": [],
    "calibration": None,
    "hypervolume": [],
    "tuning": None,
    "skipped": [],
    "policy": {},
    "versions": {},
    "command": "",
}


@pytest.fixture(autouse=True)
def light_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the five megabytes of plotly where a test is not about them."""
    if "heavy" not in request.fixturenames:
        monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "window.Plotly = {};")


@pytest.fixture
def heavy() -> None:
    """Keeps plotly in the page."""


class Page(HTMLParser):
    """Takes a page apart: tags with attributes, visible text, and what stands in scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._text: list[str] = []
        self._inside = ""
        self.feed(html)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self._text).replace("\xa0", " "))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        store = {"script": self.scripts, "style": self.styles}.get(self._inside, self._text)
        store.append(data)

    @property
    def figures(self) -> Any:
        return json.loads(next(s for s in self.scripts if s.startswith('{"specs"')))["specs"]

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def page_of(run: Path) -> Page:
    return Page(build(run).read_text())


def every_number(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for item in value.values() for n in every_number(item)]
    if isinstance(value, list):
        return [n for item in value for n in every_number(item)]
    return [value] if isinstance(value, float) else []


@pytest.mark.smoke
def test_the_page_loads_nothing(make_run: RunWriter, heavy: None) -> None:
    page = page_of(make_run())
    loading = {"link", "img", "iframe", "object", "embed", "video", "audio", "source", "base", "form"}
    assert [(t, a) for t, a in page.tags if t in loading] == [
        ("link", {"rel": "icon", "href": "data:,"})
    ]
    assert not page.attributes("src") + page.attributes("srcset") + page.attributes("action")
    assert all(h.startswith(("#", "./", "data:,")) for h in page.attributes("href"))
    assert not re.search(r"url\(|@import|https?://", "".join(page.styles))
    ours = [script for script in page.scripts if len(script) < 1_000_000]
    assert len(ours) == 2 and not any("http" in script or "fetch(" in script for script in ours)
    policy = next(a["content"] for t, a in page.tags if "http-equiv" in a)
    assert policy is not None and "default-src 'none'" in policy
    assert sum(len(s) > 1_000_000 for s in page.scripts) == 1  # plotly, once


@pytest.mark.smoke
def test_every_configuration_and_number_is_on_the_page(make_run: RunWriter) -> None:
    run = make_run()
    page, document = page_of(run), load(run)
    cells = set(page.attributes("data-value"))
    for config in document.configs:
        assert config.id in page.text
        for value in (config.measured_latency_ms, config.predicted_latency_ms, config.accuracy):
            assert str(value) in cells
        assert str(speedup(document, config)) in cells
        for text in (
            words.ms_ci(config.measured_latency_ms, config.latency_ci_ms),
            words.span_ms(config.latency_ci_ms),
            words.percent(config.sparsity),
            words.percent(config.one_shot_accuracy),
        ):
            assert text in page.text
        for layer in config.layers:
            assert layer.name in page.text and layer.label in page.text
            assert f"predicted {words.us(layer.predicted_us)}" in page.text
            assert words.us(layer.measured_us) in page.text and words.us(layer.dense_us) in page.text
    sizes = [words.TIMES.join(size) for size in (("32", "32"), ("1", "3", "224", "224"))]
    for fact in ("AMD EPYC 9B45", f"digits at {sizes[0]}", sizes[1], "1460", "871", "0.988", "3.3 %"):
        assert fact in page.text


def test_a_shared_training_is_told(make_run: RunWriter) -> None:
    run = make_run()
    document = json.loads((run / "pareto.json").read_text())
    trained, pruned, alone, *_ = document["configs"]
    ensemble = {"value": 0.8125, "split": "test", "kind": "short", "samples": 480, "dtype": "f32"}
    for config, of in ((trained, None), (pruned, trained["id"])):
        config["shared"] = {"trained": of, "tail_epochs": 4.5, "tickets": 3, "ensemble": ensemble}
    (run / "pareto.json").write_text(json.dumps(document))
    text = page_of(run).text
    reached = "training; 3 models of it together reach 81.2 % on test, at 3 times its latency"
    pruned_from = f"pruned from {trained['id']}'s {reached}"
    of_its_own = f"trained for others too; {reached.removeprefix('training; ')}"
    assert text.count(pruned_from) == text.count(of_its_own) == 1
    rows = tuple({**config, "weights": "w.safetensors"} for config in (trained, pruned, alone))
    lines = TrainOutcome(run=str(run), rows=rows).text().splitlines()
    assert lines[0].endswith(f"; {of_its_own}") and lines[1].endswith(f"; {pruned_from}")
    assert "together" not in lines[2]


def test_the_figures_hold_the_runs_numbers(make_run: RunWriter) -> None:
    run = make_run()
    figures, document, source = page_of(run).figures, load(run), read(run)
    drawn = every_number(figures["pareto"]["data"])
    for config in document.configs:
        assert config.measured_latency_ms in drawn and 100 * config.accuracy in drawn
        low, high = config.latency_ci_ms or (0, 0)
        assert (config.measured_latency_ms or 0) - low in drawn
        assert high - (config.measured_latency_ms or 0) in drawn
    assert document.dense.latency is not None and document.dense.latency.median_ms in drawn
    seen = every_number(figures["trials"]["data"])
    assert all(t.latency_ms in seen for t in source.trials if t.state == "COMPLETE")
    shapes = figures["pareto"]["layout"]["shapes"]
    assert [shape["x1"] for shape in shapes] == [14.0, 14.0]
    points = figures["calibration"]["data"][-1]
    assert points["y"] == [c.measured_latency_ms for c in document.configs]
    assert figures["hypervolume"]["data"][0]["y"] == [p.value for p in document.hypervolume]


def test_each_figure_is_of_one_split(make_run: RunWriter) -> None:
    run = make_run()
    figures, document, source = page_of(run).figures, load(run), read(run)
    dense = document.dense
    assert dense.accuracy is not None and dense.trained[0].validation is not None
    of_test = {100 * c.accuracy for c in document.configs}
    of_test |= {100 * dense.accuracy.value, 100 * dense.trained[0].accuracy.value}
    of_validation = {100 * (c.validation_accuracy or 0) for c in document.configs}
    of_validation |= {100 * t.accuracy for t in source.trials if t.accuracy is not None}
    of_validation |= {100 * b.accuracy for b in document.baselines}
    of_validation |= {100 * p.accuracy for p in document.predicted_front}
    of_validation |= {100 * dense.validation["f32"].value, 100 * dense.trained[0].validation.value}
    heights = {name: {y for t in figures[name]["data"] for y in t["y"]} for name in figures}
    assert heights["pareto"] == of_test
    assert heights["trials"] == of_validation
    titles = [figures[name]["layout"]["yaxis"]["title"]["text"] for name in ("pareto", "trials")]
    assert titles == ["Top-1 accuracy, test split (%)", "Top-1 accuracy, validation split (%)"]


def test_a_run_that_knows_validation_alone_is_drawn_on_it_without_the_dense_of_test(
    make_run: RunWriter,
) -> None:
    def earlier(d: dict[str, Any]) -> None:
        for key in ("validation", "trained"):
            d["dense"].pop(key)
        for config in d["configs"]:
            config.update(accuracy_kind="one-shot", accuracy_split="validation")
            config.pop("validation_accuracy")

    run = make_run(edit=earlier)
    page, document = page_of(run), load(run)
    assert "trials" not in page.figures
    heights = {y for trace in page.figures["pareto"]["data"] for y in trace["y"]}
    assert document.dense.accuracy is not None
    assert {100 * c.accuracy for c in document.configs} <= heights
    assert 100 * document.dense.accuracy.value not in heights
    assert "its accuracy on the validation split is not recorded" in page.text


def test_given_weights_and_the_dense_model_trained_as_long_are_on_the_page(
    make_run: RunWriter,
) -> None:
    text = page_of(make_run(edit=lambda d: d.update(given_weights=True))).text
    assert words.GIVEN_WEIGHTS in text
    assert "short training, 4 epochs" in text and "98.1 % of 360" in text
    assert words.GIVEN_WEIGHTS not in page_of(make_run()).text


def test_predicted_and_measured_never_share_a_trace(make_run: RunWriter) -> None:
    def half_measured(d: dict[str, Any]) -> None:
        d["configs"][0].update(measured_latency_ms=None, latency_ci_ms=None)

    run = make_run(edit=half_measured)
    page, document = page_of(run), load(run)
    drawn = every_number(page.figures["pareto"]["data"])
    assert 100 * document.configs[0].accuracy not in drawn
    assert "not measured" in page.text


def test_hostile_text_stays_text(make_run: RunWriter) -> None:
    def poison(d: dict[str, Any]) -> None:
        d.update(model=HOSTILE, command=HOSTILE, data=HOSTILE, version=HOSTILE)
        d["skipped"] = [{"what": HOSTILE, "why": HOSTILE}]
        d["tuning"]["skipped"] = [{"reason": HOSTILE, "count": 1}]
        d["baselines"][0]["name"] = HOSTILE
        d["configs"][0].update(id=HOSTILE, plan="javascript:alert(1)")
        d["configs"][1]["plan"] = "../../secret.yaml"
        d["configs"][2]["plan"] = "//evil.example/x"
        d["verdict"] = {"id": HOSTILE, "text": HOSTILE}
        d["policy"] = {HOSTILE: HOSTILE}
        d["dense"]["peers"] = {HOSTILE: d["dense"]["peers"]["torch"]}
        for layer in d["configs"][0]["layers"]:
            layer.update(name=HOSTILE + layer["name"], label=HOSTILE, kernel=HOSTILE)

    run = make_run(edit=poison)
    (run / "config.yaml").write_text(HOSTILE + "</pre></script><script>")
    (run / "trials.csv").write_text(
        f'number,state,kind,latency_ms,accuracy,feasible,params\n1,COMPLETE,"{HOSTILE[:27]}",9.0,0.9,true,{{}}\n'
    )
    html = build(run).read_text()
    page = Page(html)
    assert html.count("<script") == 3
    assert not any(t == "img" for t, _ in page.tags) and not page.attributes("onerror")
    assert page.text.count("alert('x')") > 20
    links = page.attributes("href")
    assert "./javascript%3Aalert%281%29" in links and links.count("#") == 2
    texts = json.dumps(page.figures)
    assert "alert(" in unescape(texts) and "<script" not in texts and "<img" not in texts


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hardware.json", "hardware.json is not in the run folder."),
        ("trials.csv", "Search trials are not drawn: trials.csv is not in the run folder."),
        ("latency_table.csv", "reasons for dense ones are incomplete: latency_table.csv is not"),
        ("config.yaml", "config.yaml is not in the run folder."),
    ],
)
def test_a_missing_file_is_said_and_not_fatal(make_run: RunWriter, name: str, said: str) -> None:
    assert said in page_of(make_run(without=(name,))).text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("hardware.json", "{"),
        ("hardware.json", "[]"),
        ("hardware.json", '{"hardware_id": "x", "colour": 1}'),
        ("trials.csv", "number,state\n1,COMPLETE\n"),
        (
            "trials.csv",
            "number,state,kind,latency_ms,accuracy,feasible,params\nx,COMPLETE,a,1,1,true,\n",
        ),
        ("latency_table.csv", "layer,shape,label,kernel,median_us\na,b,dense,k,fast\n"),
        ("config.yaml", "\udcff"),
    ],
)
def test_a_damaged_file_is_said_and_not_fatal(make_run: RunWriter, name: str, content: str) -> None:
    run = make_run()
    (run / name).write_bytes(content.encode(errors="surrogateescape"))
    text = page_of(run).text
    assert f"{name} cannot be read" in text
    assert str(run) not in text


def test_every_missing_part_of_the_document_is_said(make_run: RunWriter) -> None:
    def bare(d: dict[str, Any]) -> None:
        d.update(EMPTY)
        d["dense"] = {"latency": None, "accuracy": None, "peers": {}}
        for config in d["configs"]:
            config["layers"] = []

    text = page_of(make_run(edit=bare)).text
    for said in (
        "The predicted front is not drawn",
        "Uniform baselines are not drawn",
        "The dense model is not drawn",
        "No dense run was measured",
        "No layers to show",
        "No comparison",
        "No curve",
        "holds no counts of the tuner",
        "Nothing was left out on purpose",
        "does not record the measurement policy",
        "does not record the command",
    ):
        assert said in text
    headings = (
        "Latency against accuracy",
        "Configurations",
        "What became of every layer",
        "Predicted against measured",
        "Progress of the search",
        "What was skipped, and why",
        "Hardware and measurement",
        "How to reproduce",
    )
    places = [text.index(heading, text.index("Reproduce")) for heading in headings]
    assert places == sorted(places)


def test_an_infeasible_run(make_run: RunWriter) -> None:
    page = page_of(make_run(budget_ms=3.0))
    assert "budget 3 ms infeasible" in page.text and "Smallest feasible budget" in page.text
    assert "over" in page.text and "class" in {k for _, a in page.tags for k in a}
    nothing = page_of(make_run(configs=0, trials=0, budget_ms=3.0))
    assert "There is no configuration to show" in nothing.text
    assert "budget 3 ms infeasible" in nothing.text


def test_a_run_without_a_budget(make_run: RunWriter) -> None:
    page = page_of(make_run(budget_ms=None))
    assert "whole front, no budget" in page.text
    assert "shapes" not in page.figures["pareto"]["layout"]


def test_one_configuration_alone(make_run: RunWriter) -> None:
    page = page_of(make_run(configs=1, trials=0, budget_ms=40.0, edit=lambda d: d.update(EMPTY)))
    assert "budget 40 ms met" in page.text
    low, high = page.figures["pareto"]["layout"]["xaxis"]["range"]
    assert 0 <= low < high


def test_thousands_of_trials_are_thinned_and_said(make_run: RunWriter) -> None:
    run = make_run(trials=9000)
    page = page_of(run)
    done = sum(t.state == "COMPLETE" for t in read(run).trials)
    drawn = len(page.figures["trials"]["data"][0]["x"])
    assert 2000 < drawn <= 4000
    assert f"{drawn} of {done} trials are drawn" in page.text
    assert (run / "report.html").stat().st_size < 3e6


def test_failed_trials_are_counted_with_their_reasons(make_run: RunWriter) -> None:
    run = make_run()
    source = read(run)
    assert source.unfinished_trials == {"Failed": 2}
    assert "Trials that did not complete 2 the evaluation ran out of memory" in page_of(run).text
    header = (run / "trials.csv").read_text().splitlines()[0]
    (run / "trials.csv").write_text(header + "\n")
    assert "Search trials are not drawn: trials.csv holds none." in page_of(run).text


def test_the_same_files_give_the_same_bytes(make_run: RunWriter, heavy: None) -> None:
    run = make_run()
    first = build(run).read_bytes(), (run / "pareto.csv").read_bytes()
    assert (build(run).read_bytes(), (run / "pareto.csv").read_bytes()) == first


def test_the_csv_is_the_json(make_run: RunWriter) -> None:
    run = make_run()
    build(run)
    document = load(run)
    with (run / "pareto.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [config.id for config in document.configs]
    for row, config in zip(rows, document.configs, strict=True):
        for name in ("measured_latency_ms", "predicted_latency_ms", "accuracy", "sparsity"):
            assert float(row[name]) == getattr(config, name)
        assert float(row["validation_accuracy"]) == config.validation_accuracy
        assert float(row["one_shot_validation_accuracy"]) == config.one_shot_accuracy
        assert row["accuracy_change_against"] == "dense trained as long"
        assert (row["accuracy_split"], row["accuracy_samples"], row["epochs"]) == ("test", "360", "4")
        assert (
            float(row["latency_ci_low_ms"]),
            float(row["latency_ci_high_ms"]),
        ) == config.latency_ci_ms
        assert float(row["speedup"]) == speedup(document, config)
        assert (row["feasible"] == "true") == config.feasible
        assert (row["accuracy_kind"], row["plan"]) == (config.accuracy_kind, config.plan)
    assert sum(row["chosen"] == "true" for row in rows) == 1


def test_reasons_of_dense_layers(make_run: RunWriter) -> None:
    run = make_run()
    source = read(run)
    by_name = {view.layer.name: view for view in views(source, source.document.configs[0])}
    assert by_name["conv1"].note == "the first layer has 3 input channels"
    assert by_name["fc"].note.startswith("kept for accuracy (fastest sparse: 1x16@0.9375")
    sparse = by_name["layer1.0.conv1"]
    assert sparse.note == "" and sparse.heat == 1 + int(10 * sparse.layer.sparsity)
    table = (run / "latency_table.csv").read_text().splitlines()
    slow = [line for line in table if not line.startswith("fc,") or ",dense," in line]
    (run / "latency_table.csv").write_text("\n".join([*slow, "fc,s,1x8@0.5,k,f32,2,1e9,1,1,1"]) + "\n")
    source = read(run)
    fc = views(source, source.document.configs[0])[-1]
    assert fc.note.startswith("no sparse option is faster (best: 1x8@0.5")


def test_sums_count_only_layers_known_before_and_after(make_run: RunWriter) -> None:
    def forget(d: dict[str, Any]) -> None:
        d["configs"][0]["layers"][0].update(dense_us=None)
        d["configs"][0]["layers"][1].update(measured_us=None)

    source = read(make_run(edit=forget))
    rows = views(source, source.document.configs[0])
    sums = totals(rows)
    assert sums.layers == 20
    known = source.document.configs[0].layers[1:]
    assert sums.before_us == pytest.approx(sum(layer.dense_us or 0 for layer in known))
    expected = (known[0].predicted_us or 0) + sum(layer.measured_us or 0 for layer in known[1:])
    assert sums.after_us == pytest.approx(expected)


def test_an_unwritable_or_unfinished_run_is_refused(make_run: RunWriter, tmp_path: Path) -> None:
    run = make_run()
    (run / "report.html").mkdir()
    with pytest.raises(RunError, match=r"report\.html"):
        build(run)
    with pytest.raises(RunError, match=r"pareto\.json"):
        build(tmp_path / "absent")
    before = sorted(p.name for p in run.iterdir())
    (run / "pareto.json").write_text("{}")
    with pytest.raises(RunError, match="schema"):
        build(run)
    assert sorted(p.name for p in run.iterdir()) == before


def test_report_needs_neither_torch_nor_ray_nor_optuna() -> None:
    code = (
        "import sys, autosparse.report; "
        "print([m for m in ('torch','ray','optuna','scipy','sklearn') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_documents_of_all_sizes_build(make_run: RunWriter) -> None:
    def document_of(**options: Any) -> Document:
        run = make_run(**options)
        build(run)
        return load(run)

    assert len(document_of(configs=40, trials=0, seed=3).configs) == 40
    assert document_of(configs=2, trials=1, budget_ms=1e-3, seed=4).budget_ms == 1e-3
