"""The device's code, compiled or interpreted.

Whether Triton compiles a function or interprets it is decided when its decorator runs. So that one
process can do both, the folder `device` is imported a second time, under another name, with the
switch on.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autosparse.errors import NoKernel

_KERNELS = {"forward": ("forward", "finish"), "gradient": ("weight_gradient",)}
FOLDER = Path(__file__).parent / "device"
_HERE = __package__


@functools.cache
def device_code(*, is_interpreted: bool) -> Mapping[str, Any]:
    """Gives the kernels by name.

    Args:
        is_interpreted: whether they run in Triton's interpreter, on the CPU.

    Raises:
        NoKernel: triton is not installed.
    """
    if importlib.util.find_spec("triton") is None:
        raise NoKernel(
            "kernels of tiles need triton, which is not installed; install autosparse[gpu]", {}
        )
    name = f"{_HERE}.device"
    if is_interpreted:
        import triton

        name = f"{_HERE}.interpreted"
        with triton.knobs.runtime.scope():
            triton.knobs.runtime.interpret = True
            _import_folder(name)
            return _kernels(name)
    return _kernels(name)


def _import_folder(name: str) -> None:
    """Imports the folder as a package of that name, which its files then import each other from."""
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)


def _kernels(name: str) -> dict[str, Any]:
    found = {}
    for module, kernels in _KERNELS.items():
        loaded = importlib.import_module(f"{name}.{module}")
        found.update({kernel: getattr(loaded, kernel) for kernel in kernels})
    return found
