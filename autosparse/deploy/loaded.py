"""An artifact, loaded: a callable that needs neither torch nor the search."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosparse.deploy.manifest import LayerReport, Manifest, Port, rebuilt
from autosparse.deploy.model import RunnableModel
from autosparse.deploy.runner import NativeRunner
from autosparse.errors import ArtifactError, UsageError
from autosparse.hardware.cores import checked_threads
from autosparse.kernels.binding import NativeProgram


class LoadedModel(RunnableModel):
    """A model from an artifact, made by `load`.

    Safe to call from several threads; calls run one after another. Several loaded models, of the same
    file or of different ones, run side by side. It holds native memory and threads: use it as a
    context manager, or `close` it.

    Attributes:
        layers: every weight-bearing layer with the kernel that runs it here and why.
        threads: worker threads.
        dtype: arithmetic type inside; inputs and outputs are float32.
        batch_size: samples per call.
        manifest: what the artifact says of itself.
    """

    _AGAIN = "load it again"

    def __init__(self, program: NativeProgram, manifest: Manifest) -> None:
        self.manifest = manifest
        runner = NativeRunner(program, manifest.operators, manifest.sources)
        random = np.random.default_rng(0)
        super().__init__(
            runner,
            [random.standard_normal(port.shape, np.float32) for port in manifest.inputs],
            _layers_here(program, manifest),
            threads=program.threads,
            dtype=manifest.dtype,
            batch_size=manifest.inputs[0].shape[0] if manifest.inputs else 1,
            names={
                manifest.operators[index]: layer.name
                for index, layer in zip(manifest.layer_operators, manifest.layers, strict=True)
            },
        )

    def __call__(self, *inputs: Any) -> Any:
        """Runs once; inputs are neither written nor kept.

        Args:
            inputs: float32 numpy arrays of the shapes in `manifest.inputs`, or whatever turns into such
                without a copy, torch tensors on the CPU among them.

        Returns:
            What the module returned, made of fresh numpy arrays; of torch tensors if the inputs were.

        Raises:
            UsageError: another number, shape or type of inputs, or the model is closed.
        """
        expected = self.manifest.inputs
        if len(inputs) != len(expected):
            raise UsageError(f"this model takes {len(expected)} inputs, but got {len(inputs)}")
        arrays = [_array(index, *pair) for index, pair in enumerate(zip(inputs, expected, strict=True))]
        leaves = [
            leaf.reshape(port.shape)
            for leaf, port in zip(self._run(arrays), self.manifest.outputs, strict=True)
        ]
        return rebuilt(self.manifest.result, _as_given(leaves, inputs))

    def __repr__(self) -> str:
        shapes = ", ".join("x".join(map(str, port.shape)) for port in self.manifest.inputs)
        sparse = sum(layer.pattern != "dense" for layer in self.layers)
        return (
            f"LoadedModel({self.manifest.model or 'unnamed'}: {shapes}; {sparse} of {len(self.layers)} "
            f"layers sparse; {self.dtype}, {self.threads} threads)"
        )


def load(path: Path | str, threads: int | None = None, pin: bool = False) -> LoadedModel:
    """Loads an artifact that `autosparse export` or `CompiledModel.save` wrote.

    The file is checked against its hashes, packed for this machine, and not needed afterwards. Where
    this machine or version lacks a kernel that the artifact names, the executor's default runs the
    layer; `layers` says so.

    Args:
        path: the file.
        threads: worker threads, the calling one included; None takes every usable core.
        pin: whether every worker stays on one processor while it runs, one that no other run of this
            process is pinned to; where too few are left, none is. For a process that has its
            processors to itself: those of other processes may be pinned to the same.

    Raises:
        ArtifactError: the file is missing, no artifact, truncated, changed, or too new.
        NoKernel: no kernel runs one of its layers here.
        UsageError: threads that this machine does not have.
    """
    program = NativeProgram.load(Path(path), checked_threads(threads), pin)
    try:
        manifest = Manifest.parse(program.manifest)
        _check(manifest, program)
        return LoadedModel(program, manifest)
    except ArtifactError as error:
        program.close()
        raise ArtifactError(f"{path}: {error}") from None


def _check(manifest: Manifest, program: NativeProgram) -> None:
    """Refuses a manifest that does not fit its program: it is as little trusted as the rest."""
    outputs = [
        program.output_shapes()[i] for i in manifest.sources if 0 <= i < len(program.output_shapes())
    ]
    rules = {
        "inputs": _sizes(manifest.inputs) == [math.prod(shape) for shape in program.input_shapes()],
        "outputs": _sizes(manifest.outputs) == [math.prod(shape) for shape in outputs],
        "operators": len(manifest.operators) == program.op_count,
        "layers": len(manifest.layers) == len(manifest.layer_operators)
        and all(0 <= index < program.op_count for index in manifest.layer_operators),
    }
    for what, holds in rules.items():
        if not holds:
            raise ArtifactError(f"an artifact's {what} must be those of its program; export it again")
    rebuilt(manifest.result, manifest.outputs)


def _sizes(ports: Sequence[Port]) -> list[int]:
    return [math.prod(port.shape) for port in ports]


def _layers_here(program: NativeProgram, manifest: Manifest) -> tuple[LayerReport, ...]:
    kernels, notes = program.op_kernels(), program.op_notes()
    found = []
    for layer, index in zip(manifest.layers, manifest.layer_operators, strict=True):
        kernel = kernels[index] or "builtin"
        why = layer.why
        if notes[index]:
            why = f"the artifact's kernel cannot run here ({notes[index]}): the executor's default"
        found.append(dataclasses.replace(layer, kernel=kernel, why=why))
    return tuple(found)


def _array(index: int, value: Any, port: Port) -> NDArray[np.float32]:
    try:
        # A tensor that wants gradients refuses to become an array before it is detached.
        array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"input {index} must turn into an array, but a {type(value).__name__} does not: {error}"
        ) from None
    if array.shape != port.shape:
        raise UsageError(
            f"input {index} must have shape {list(port.shape)}, but got {list(array.shape)}; "
            "export again for another shape"
        )
    if str(array.dtype) != port.dtype:
        raise UsageError(f"input {index} must be {port.dtype}, but got {array.dtype}; convert it first")
    return array


def _as_given(leaves: Sequence[NDArray[Any]], inputs: Sequence[Any]) -> list[Any]:
    """Gives results as tensors where the inputs were: whoever passes one has imported torch."""
    torch = sys.modules.get("torch")
    if torch is None or not any(isinstance(value, torch.Tensor) for value in inputs):
        return list(leaves)
    return [torch.from_numpy(leaf) for leaf in leaves]
