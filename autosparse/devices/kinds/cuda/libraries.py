"""What has to be installed for kernels of GPUs, looked at without loading any of it."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from autosparse.kernels.gpu.method import all_methods


@functools.cache
def torch_cuda() -> str:
    """Gives the version of CUDA that torch was built with; empty without torch or CUDA.

    It stands in a file of torch's that loads nothing.
    """
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return ""
    file = Path(torch.origin).with_name("version.py")
    spec = importlib.util.spec_from_file_location("version_of_torch", file)
    if spec is None or spec.loader is None or not file.is_file():
        return ""
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(getattr(module, "cuda", None) or "")


def missing() -> tuple[str, ...]:
    """Names the distributions that some kernels need and that are not installed."""
    return tuple(sorted({name for method in all_methods().values() for name in method.missing}))


@functools.cache
def why_no_kernels() -> str:
    """Says what has to be installed before a GPU of this host can be used; empty if nothing has."""
    absent = missing()
    if absent:
        return (
            f"kernels of GPUs need {' and '.join(absent)}, which is not installed; "
            "pip install 'autosparse[gpu]'"
        )
    if not torch_cuda():
        return (
            "the torch that is installed was built without CUDA; install one with it, as "
            "https://pytorch.org/get-started says"
        )
    return ""
