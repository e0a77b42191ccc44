"""torch on a GPU without a compiler: cuDNN and cuBLAS, channels last, in a CUDA graph."""

from __future__ import annotations

from autosparse.compare.on_gpu import running
from autosparse.compare.peer import Peer, Variant

PEER = Peer(
    name="cudnn",
    needs={"torch": "torch"},
    variants=(Variant(name="cudnn", dtype="bf16", device="cuda", open=running),),
    why_no_memory="it computes on a GPU",
)
