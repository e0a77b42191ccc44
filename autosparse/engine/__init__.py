"""From a module to something that runs fast: the fused graph, a kernel per layer, a native program.

    compile(model, example_inputs) -> CompiledModel
    export(model, example_inputs, path)    the same into a file
    why_not_native(graph, dtype)           what would make the model run through torch
    held_zeros(graph)                      layers whose weights would make them run sparse

measured    what the tuning database knows of a layer
select      a kernel per layer, and why
tuned       rows measured for this very model
contest     rows against the executor's own rule, whole programs in turn
lower       the graph as a native program
runners     torch, where the native executor cannot
border      what a compiled model takes and gives
compiled    the callable
saving      the callable as an artifact
exporting   all of it in one call
"""

from __future__ import annotations

from autosparse.deploy import LayerReport
from autosparse.engine.compiled import CompiledModel
from autosparse.engine.compiling import compile, why_not_native
from autosparse.engine.exporting import export
from autosparse.engine.select import held_zeros

__all__ = ["CompiledModel", "LayerReport", "compile", "export", "held_zeros", "why_not_native"]
