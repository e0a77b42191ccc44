"""A compiled model: call it, ask what runs where and why, time it, save it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autosparse.deploy import LayerReport, Manifest
from autosparse.deploy.model import RunnableModel
from autosparse.deploy.runner import Runner
from autosparse.devices.device import kind_of
from autosparse.engine.border import Border, to_kind
from autosparse.engine.saving import Facts, Saveable, save
from autosparse.errors import UsageError
from autosparse.graph import Port
from autosparse.measuring.histories import prober_for
from autosparse.measuring.states import UNMARKED, Prober
from autosparse.plans.plan import Plan
from autosparse.records import Accuracy, WholeLatency


class CompiledModel(RunnableModel):
    """A model for inputs of fixed shapes, made by `compile`.

    Safe to call from several threads; calls run one after another. It holds native memory and threads:
    use it as a context manager, or `close` it. It cannot be pickled; compile again from the module.

    Attributes:
        layers: every weight-bearing layer with its kernel and why.
        threads: worker threads.
        dtype: arithmetic type.
        batch_size: samples per call, as in the example.
        why: what made the model run through torch; empty where the native executor runs it.
        tuning: what ``compile(..., tune=...)`` found; empty without.
    """

    _AGAIN = "compile the module again"

    def __init__(
        self,
        runner: Runner,
        border: Border,
        layers: tuple[LayerReport, ...],
        *,
        threads: int,
        names: dict[str, str],
        dtype: str = "f32",
        why: tuple[str, ...] = (),
        saveable: Saveable | None = None,
    ) -> None:
        super().__init__(
            runner,
            border.examples,
            layers,
            threads=threads,
            dtype=dtype,
            batch_size=border.batch_size,
            names=names,
        )
        self.why = why
        self.tuning = ""
        self._border = border
        self._saveable = saveable

    def __call__(self, *inputs: Any) -> Any:
        """Runs once; inputs are neither written nor kept.

        Args:
            inputs: torch tensors of the example's types on the CPU, or on the GPU that the model was
                compiled for, or numpy arrays; of the example's shapes.

        Returns:
            What the module returns, made of fresh tensors of the inputs' kind, without gradients.

        Raises:
            UsageError: another number, kind, shape or type of inputs, or the model is closed.
        """
        as_arrays = self._border.check(inputs)
        leaves = self._run(inputs)
        ports = self._ports(leaves)
        # On a GPU results are fresh tensors, and go where the inputs came from.
        home = inputs[0].device if self._border.device != "cpu" and not as_arrays else None
        return self._border.rebuild(
            [to_kind(leaf, port, as_arrays, home) for leaf, port in zip(leaves, ports, strict=True)]
        )

    def _ports(self, leaves: Sequence[Any]) -> Sequence[Port | None]:
        # torch's own result may hold leaves that are no tensors; they pass as they are.
        return self._border.outputs if self._engine == "autosparse" else [None] * len(leaves)

    def _prober(self) -> Prober | None:
        if self._border.device != "cpu":
            return kind_of(self._border.device).watch(self.threads, UNMARKED)
        return prober_for(self.threads)

    def save(
        self,
        path: Path | str,
        *,
        model: str = "",
        plan: Plan | None = None,
        accuracy: Accuracy | None = None,
        latency: WholeLatency | None = None,
        overwrite: bool = False,
    ) -> Manifest:
        """Writes the model into one file, which `autosparse.load` runs without torch.

        The module must have been compiled with ``exportable=True``: without it nothing of the weights
        is kept beside what the executor packed.

        Args:
            path: the file, by custom ``.autosparse``.
            model: the model's name, for whoever finds the file.
            plan: the plan it was compiled with, to keep in the file.
            accuracy: of these weights, to keep in the file.
            latency: as measured on this host, to keep in the file; see `measure`.
            overwrite: replaces an existing file.

        Returns:
            What the file says of itself.

        Raises:
            UsageError: the model was not compiled for it, runs through torch, returns what cannot be
                saved, or is closed; or the file exists.
            RunError: the file cannot be written.
        """
        facts = Facts(model=model, plan=plan, accuracy=accuracy, latency=latency)
        return self.save_as(Path(path), facts, overwrite=overwrite)

    def save_as(self, path: Path, facts: Facts, *, overwrite: bool) -> Manifest:
        """Does what `save` does, with all that is known of the model in one record."""
        if self._engine != "autosparse":
            raise UsageError(
                "a model to save must run natively as a whole, but this one runs through torch: "
                f"{self.why[0]}"
            )
        if self._saveable is None:
            raise UsageError(
                "a model to save must keep its weights, but this one was compiled without; "
                "call compile(..., exportable=True)"
            )
        with self._lock:
            self._open()
            return save(
                path, self._saveable, self._border, self.layers, self.dtype, facts, overwrite=overwrite
            )

    def __repr__(self) -> str:
        shapes = ", ".join("x".join(map(str, port.dims)) for port in self._border.inputs)
        sparse = sum(layer.pattern != "dense" for layer in self.layers)
        return (
            f"CompiledModel({shapes}; {sparse} of {len(self.layers)} layers sparse; "
            f"{self._engine}, {self.dtype}, {self.threads} threads)"
        )
