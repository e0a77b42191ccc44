"""What tests ask of hosts: a small tuning, and sessions that do what they are told."""

from __future__ import annotations

import dataclasses

from autosparse.measuring.stopwatch import LAYERS
from autosparse.records import LayerInfo, LayerShape, onexn
from autosparse.tuning.request import TuneRequest

RUNNER = "odd_sessions:run"
STEP = "start a session"
# What is promised is two seconds; a busy machine may take longer.
PATIENCE_S = 10.0
SHAPE = LayerShape(
    op="conv2d",
    batch_size=1,
    in_channels=16,
    out_channels=16,
    in_height=8,
    in_width=8,
    kernel=(3, 3),
    padding=(1, 1),
)
REQUEST = TuneRequest(
    layers=(LayerInfo(name="conv", shape=SHAPE, why_dense=()),),
    patterns=(onexn(16),),
    sparsities=(0.75,),
    policy=dataclasses.replace(LAYERS.for_model(1 << 20), time_cap_us=20_000.0, warmup_us=1_000.0),
)
