"""The emulated machine shows what a GPU might hide: sources with one wait or one meeting less fail."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from autosparse.kernels.gpu.methods.sparse_mma.build import FOLDER
from tests.kernels_gpu.sparse_mma.emulated import Emulator
from tests.kernels_gpu.sparse_mma.layers import expected
from tests.kernels_gpu.sparse_mma.situations import MMA, Situation
from tests.kernels_gpu.sparse_mma.test_emulated import POLICIES, assert_close


@dataclass(frozen=True)
class Fault:
    file: str
    sound: str
    faulty: str
    situation: Situation


FAULTS = {
    "a wait too short": Fault("mma.cu", "wait<V::STAGES - 2>", "wait<V::STAGES - 1>", MMA["linear"]),
    "no meeting before a step": Fault("mma.cu", "block_sync();  //", "//", MMA["linear"]),
    "no meeting after a table": Fault(
        "mma.cu", "run);\n            if constexpr (V::SPATIAL) block_sync();", "run);", MMA["strided"]
    ),
    "no meeting of a warp": Fault("layer.cuh", "warp_sync();\n        if", "if", MMA["linear"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_show(emulator: Emulator, tmp_path: Path, name: str) -> None:
    fault = FAULTS[name]
    source = (FOLDER / fault.file).read_text()
    assert source.count(fault.sound) == 1, "the sound source says otherwise"
    (tmp_path / fault.file).write_text(source.replace(fault.sound, fault.faulty))
    faulty = Emulator(tmp_path, [fault.situation.variant])
    layer, x, residual = fault.situation.layer(), fault.situation.input(), fault.situation.residual()
    wanted = expected(layer, x, residual)
    shown = 0
    for policy in POLICIES:
        try:
            got = faulty.run(fault.situation.variant, layer, x, residual, grid=1, **policy)
            assert_close(got, wanted, fault.situation.dtype)
        except AssertionError:
            shown += 1
    assert shown, "nobody notices"
    assert np.isfinite(wanted).all()
