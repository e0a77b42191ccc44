"""Dense engines on the channel-pruned model of as many operations as one with zeros.

No sparse kernel is needed for it, so it is the honest rival of every mask. Its accuracy is another
matter, and not compared here.
"""

from __future__ import annotations

from autosparse.compare.peer import Peer, Variant
from autosparse.compare.peers import onnxruntime, openvino, torch_compile
from autosparse.compare.slim_task import slim_task

_ENGINES = tuple(
    engine for engine in (torch_compile.PEER, onnxruntime.PEER, openvino.PEER) if not engine.missing
)

PEER = Peer(
    name="channel-pruned",
    needs={"torch": "torch"},
    variants=tuple(
        Variant(
            name=f"{variant.name} channel-pruned",
            dtype=variant.dtype,
            device=variant.device,
            open=variant.open,
            instead=slim_task,
        )
        for engine in _ENGINES
        for variant in engine.variants
        if variant.dtype != "int8"
    ),
    by_name_only=True,
    why_no_memory="it runs another model than the others",
)
