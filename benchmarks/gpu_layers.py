"""Layers and whole models tuned on a GPU, and then timed anew in turn with their rivals."""

from __future__ import annotations

import copy
import dataclasses
import functools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from gpu_figures import LayerFigure, Ratio, WholeFigure
from gpu_shapes import Case
from torch import nn

from autosparse.database import TuningDatabase
from autosparse.devices.device import kind_of
from autosparse.devices.kinds.cuda.device import Cuda
from autosparse.devices.layer import random_layer
from autosparse.engine.compiled import CompiledModel
from autosparse.engine.gpu.compiling import compile_on, place_of, torch_alone
from autosparse.engine.gpu.contest import by_torch
from autosparse.errors import NoKernel
from autosparse.graph import Exported
from autosparse.graph.sites import find_sites
from autosparse.measuring.states import UNMARKED
from autosparse.measuring.stopwatch import LAYERS, WHOLE, Runner, Timing
from autosparse.measuring.turns import interleave_here, paired_ratio
from autosparse.patterns import parse_pattern
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.progress import Progress
from autosparse.records import LatencyOption, LayerInfo, Measurement, Status
from autosparse.tuning.autotune import tune
from autosparse.tuning.request import TuneRequest, TuneResult, dense_weight_bytes

SPARSITY = 0.75
DTYPE = "bf16"
# Between two uses of a layer's weights lie those of a model of some size, here of BERT-base's.
_REUSE_BYTES = 128 << 20
_COPIES = 4
_TURNS = dataclasses.replace(LAYERS, name="check", time_cap_us=400_000.0)
_WHOLE = dataclasses.replace(WHOLE, time_cap_us=3_000_000.0)
_OFF = 0.05  # of a whole model's results in bf16, over their norm
_LIBRARYS_HALF = "bf16_nm24__cuda_cusparselt"


class Checker:
    """Measures on one GPU; rows go into a database that is gone afterwards."""

    def __init__(self, device: Cuda) -> None:
        self._device = device
        self._stack = ExitStack()

    def __enter__(self) -> Checker:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._rows = self._stack.enter_context(TuningDatabase(f"sqlite:///{folder}/rows.db"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # ----------------------------------------------------------------------------------- layers

    def layer(self, group: str, case: Case, patterns: Sequence[str], seconds: float) -> LayerFigure:
        """Tunes a layer, and times the fastest dense and sparse kernel of it in turn."""
        info = LayerInfo(name=case.name, shape=case.shape)
        found = self._tuned((info,), patterns, seconds, _REUSE_BYTES)
        figure = LayerFigure(group=group, name=case.name, count=case.count, wrong=_is_wrong(found))
        options = found.options.get(case.name, ())
        dense = next((each for each in options if each.choice.pattern.is_dense), None)
        sparse = min(
            (each for each in options if not each.choice.pattern.is_dense),
            key=lambda each: each.median_us,
            default=None,
        )
        if dense is None or sparse is None:
            why = found.unmeasured.get(case.name) or _told(found.failed) or "no time was left to tune"
            return dataclasses.replace(figure, missing=why)
        half = group == "linears, TVW"
        timings = self._in_turn(case, dense, sparse, with_half=half)
        over_library = _ratio(timings["2:4"], timings["sparse"]) if "2:4" in timings else None
        return dataclasses.replace(
            figure,
            dense_kernel=str(dense.choice.kernel),
            kernel=str(sparse.choice.kernel),
            pattern=sparse.choice.pattern.name,
            dense_us=timings["dense"].median_us,
            us=timings["sparse"].median_us,
            over_dense=_ratio(timings["dense"], timings["sparse"]),
            over_library=over_library,
            is_chosen=sparse.median_us < dense.median_us,
        )

    def _in_turn(
        self, case: Case, dense: LatencyOption, sparse: LatencyOption, *, with_half: bool
    ) -> Mapping[str, Timing]:
        with ExitStack() as stack:
            runners = {
                key: self._runner(stack, case, each.pattern.name, each.sparsity, each.kernel)
                for key, each in (("dense", dense.choice), ("sparse", sparse.choice))
            }
            if with_half:
                try:
                    kernel = f"{_LIBRARYS_HALF}[{self._searched(case)}]"
                    runners["2:4"] = self._runner(stack, case, "2:4", 0.5, kernel)
                except NoKernel as error:
                    print(f"{case.name}: without the library's 2:4: {error}")
            return self._timed(runners, _TURNS)

    def _searched(self, case: Case) -> str:
        """Names the algorithm that the library itself finds best."""
        from autosparse.kernels.gpu import method as methods

        kernel = methods.get(_LIBRARYS_HALF)
        chip = self._device._chip
        pattern = parse_pattern("2:4")
        if why := methods.why_not(kernel, case.shape, pattern, chip):
            raise NoKernel(why, {})
        return methods.method_of(kernel).launches(kernel, case.shape, pattern, chip)[0]

    def _runner(
        self, stack: ExitStack, case: Case, pattern: str, sparsity: float, kernel: str | None
    ) -> Runner:
        name, _, config = (kernel or "").partition("[")
        layer = random_layer(case.shape, parse_pattern(pattern), sparsity, DTYPE)
        built = kind_of("cuda").build(layer, name, 1, config=config.removesuffix("]"), copies=_COPIES)
        return stack.enter_context(built).runner(layer.inputs)

    # ----------------------------------------------------------------------------------- models

    def whole(self, name: str, module: nn.Module, x: torch.Tensor, seconds: float) -> WholeFigure:
        """Tunes a model's layers, and times it whole in turn with torch.compile on the dense one."""
        captured = Exported(module, (x,))
        known = find_sites(captured).layers
        found = self._tuned(known, ("tw128k16", "tw128k32"), seconds, dense_weight_bytes(known, DTYPE))
        best = {
            layer: min(options, key=lambda each: each.median_us)
            for layer, options in found.options.items()
        }
        plan = Plan(model=name, layers={layer: each.choice for layer, each in best.items()})
        dense = Plan(model=name, layers={layer: _dense(found, layer).choice for layer in best})
        pruned = copy.deepcopy(module)
        sparsify(pruned, plan)
        place = place_of("cuda")
        ours = functools.partial(
            compile_on, Exported(pruned, (x,)), place, dtype=DTYPE, plan=plan, database=self._rows
        )
        with ExitStack() as stack:
            models = {
                "as it is": stack.enter_context(ours()),
                "compiled by torch": stack.enter_context(ours(compiler=by_torch)),
                "torch.compile": stack.enter_context(torch_alone(captured, place, DTYPE, by_torch)),
                "dense": stack.enter_context(
                    compile_on(captured, place, dtype=DTYPE, plan=dense, database=self._rows)
                ),
            }
            wrong = _off(models["as it is"], pruned, x) or _off(models["compiled by torch"], pruned, x)
            timings = self._timed({key: model.run_times for key, model in models.items()}, _WHOLE)
        way = min(("as it is", "compiled by torch"), key=lambda key: timings[key].median_us)
        saved = sum(_dense(found, layer).median_us - each.median_us for layer, each in best.items())
        return WholeFigure(
            name=name,
            wrong=wrong or _is_wrong(found),
            way=way,
            us=timings[way].median_us,
            rival_us=timings["torch.compile"].median_us,
            over_rival=_ratio(timings["torch.compile"], timings[way]),
            # What rows say that zeros save, taken from the dense model as it was measured.
            predicted_us=timings["dense"].median_us - saved,
            measured_us=timings["as it is"].median_us,
            sparse_layers=sum(not each.choice.pattern.is_dense for each in best.values()),
            layers=len(known),
        )

    # ------------------------------------------------------------------------------------- both

    def _tuned(
        self, layers: Iterable[LayerInfo], patterns: Sequence[str], seconds: float, reuse_bytes: int
    ) -> TuneResult:
        request = TuneRequest(
            layers=tuple(layers),
            patterns=tuple(map(parse_pattern, patterns)),
            sparsities=(SPARSITY,),
            dtype=DTYPE,
            policy=LAYERS.for_model(reuse_bytes),
            time_budget_us=1e6 * seconds,
        )
        return tune(request, self._device, self._rows)

    def _timed(self, runners: Mapping[str, Runner], policy: Any) -> Mapping[str, Timing]:
        found, _ = interleave_here(
            runners,
            policy,
            Progress(),
            threads=1,
            probe=lambda threads: kind_of("cuda").watch(threads, UNMARKED),
        )
        return found.timings[found.longest]


def _dense(found: TuneResult, layer: str) -> LatencyOption:
    return next(each for each in found.options[layer] if each.choice.pattern.is_dense)


def _ratio(numerator: Timing, denominator: Timing) -> Ratio:
    median, low, high = paired_ratio(numerator, denominator)
    return Ratio(median=median, low=low, high=high)


def _is_wrong(found: TuneResult) -> bool:
    return any(row.status is Status.WRONG for row in found.failed)


def _told(rows: Sequence[Measurement]) -> str:
    return "; ".join(sorted({row.message for row in rows}))


def _off(model: CompiledModel, module: nn.Module, x: torch.Tensor) -> bool:
    """Whether results differ from the module's in float32."""
    with torch.no_grad():
        expected, got = module(x).double(), model(x).double()
    return not float((got - expected).norm() / expected.norm()) <= _OFF
