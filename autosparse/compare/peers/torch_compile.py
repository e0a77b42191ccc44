"""torch.compile with its default backend, which writes and compiles C++."""

from __future__ import annotations

from autosparse.compare.on_gpu import running
from autosparse.compare.peer import Peer, Running, Variant
from autosparse.compare.peers.torch_eager import calling
from autosparse.compare.task import Task


def compiled(task: Task) -> Running:
    """Compiles for the input's shape; the first run does it."""
    import torch

    # Code that an earlier session compiled may be for another number of threads.
    torch._dynamo.reset()
    running = calling(torch.compile(task.module()), task.tensor())
    running.run(1)
    return running


def on_gpu(task: Task) -> Running:
    """Compiles for a GPU with its search for the best kernels; the graph is captured here."""
    import torch

    torch._dynamo.reset()
    return running(task, lambda module: torch.compile(module, mode="max-autotune-no-cudagraphs"))


PEER = Peer(
    name="torch.compile",
    needs={"torch": "torch"},
    variants=(
        Variant(name="torch.compile", dtype="f32", open=compiled),
        Variant(name="torch.compile bf16", dtype="bf16", device="cuda", open=on_gpu),
    ),
    also_named=("torch-compile",),
    why_no_memory="its compiler works in the same process",
)
