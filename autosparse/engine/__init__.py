"""From a module to something that runs fast: the fused graph, a kernel per layer, a native program.

    compile(model, example_inputs) -> CompiledModel

measured    what the tuning database knows of a layer
select      a kernel per layer, and why
lower       the graph as a native program
runners     the native executor, and torch where it cannot
compiled    the callable
"""

from __future__ import annotations

from autosparse.engine.compiled import CompiledModel, LayerReport
from autosparse.engine.compiling import compile

__all__ = ["CompiledModel", "LayerReport", "compile"]
