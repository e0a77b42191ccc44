"""The per-layer view: what became of every layer, what it cost before and after, and why not more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autosparse.report import words
from autosparse.report.document import Config, Layer
from autosparse.report.source import Option, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerView:
    """One layer of one configuration, ready to show.

    Attributes:
        layer: as in pareto.json.
        pattern: ``1x16``, or empty when dense.
        shape: its shape key in the latency table, or empty.
        after_us: its time, measured inside the model if possible, else from the table.
        after_is_measured: whether `after_us` was measured inside the model.
        speedup: dense time over `after_us`, None where either is unknown.
        heat: 0 for dense, else 1 to 10 by sparsity.
        note: why it stayed dense; empty for a sparse layer.
    """

    layer: Layer
    pattern: str
    shape: str
    after_us: float | None
    after_is_measured: bool
    speedup: float | None
    heat: int
    note: str

    @property
    def is_dense(self) -> bool:
        """Whether it stayed dense."""
        return not self.pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over the layers of a configuration whose time is known before and after, microseconds."""

    before_us: float
    after_us: float
    layers: int
    longest_us: float


def views(source: Source, config: Config) -> tuple[LayerView, ...]:
    """Gives a configuration's layers in execution order."""
    return tuple(_view(layer, source.options) for layer in config.layers)


def totals(layers: Sequence[LayerView]) -> Totals:
    """Sums the times, and finds the longest for the scale of the bars."""
    known = [
        (view.layer.dense_us, view.after_us)
        for view in layers
        if view.layer.dense_us is not None and view.after_us is not None
    ]
    times = [t for view in layers for t in (view.layer.dense_us, view.after_us) if t is not None]
    return Totals(
        before_us=sum(before for before, _ in known),
        after_us=sum(after for _, after in known),
        layers=len(known),
        longest_us=max(times, default=1.0) or 1.0,
    )


def _view(layer: Layer, options: Mapping[str, Sequence[Option]]) -> LayerView:
    pattern = "" if layer.label == "dense" else layer.label.partition("@")[0]
    every = options.get(layer.name, ())
    rows = [option for option in every if option.dtype == layer.dtype]
    after = layer.measured_us if layer.measured_us is not None else layer.predicted_us
    ratio = layer.dense_us / after if layer.dense_us and after else None
    return LayerView(
        layer=layer,
        pattern=pattern,
        shape=every[0].shape if every else "",
        after_us=after,
        after_is_measured=layer.measured_us is not None,
        speedup=ratio,
        heat=0 if not pattern else min(10, max(1, int(layer.sparsity * 10) + 1)),
        note="" if pattern else layer.why_dense or _why_dense(rows),
    )


def _why_dense(options: Sequence[Option]) -> str:
    """Reads from the latency table why the search may have left a layer dense."""
    sparse = [option for option in options if not option.is_dense]
    dense = [option for option in options if option.is_dense]
    if not options:
        return "no reason recorded"
    if not sparse:
        return "no sparse option was timed"
    fastest = min(sparse, key=lambda option: option.median_us)
    shown = f"{fastest.label}, {words.us(fastest.median_us)} us"
    if dense and fastest.median_us >= min(option.median_us for option in dense):
        return f"no sparse option is faster (best: {shown})"
    return f"kept for accuracy (fastest sparse: {shown})"
