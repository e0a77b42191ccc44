"""The emulated machine shows what a GPU might hide: sources with one wait or one meeting less fail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from autosparse.kernels.gpu.methods.sparse_mma.build import FOLDER
from tests.kernels_gpu.emulated import POLICIES
from tests.kernels_gpu.sparse_mma.emulated import Emulator, entry
from tests.kernels_gpu.sparse_mma.layers import expected
from tests.kernels_gpu.sparse_mma.situations import MMA, WGMMA, Situation
from tests.kernels_gpu.sparse_mma.test_emulated import assert_close


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
    "no meeting of a warp": Fault("layer.cuh", "warp_sync();\n#", "#", MMA["linear"]),
    "announced too soon": Fault("wgmma.cu", "wait<LAG>", "wait<LAG + 1>", WGMMA["linear"]),
    "no fence of what was gathered": Fault("wgmma.cu", "fence_async();", "", WGMMA["3x3"]),
    "freed while it is multiplied": Fault(
        "wgmma.cu", "if (step) release(ring.free_before()", "release(ring.free()", WGMMA["linear"]
    ),
    "sums that are not there": Fault("wgmma.cu", "multiply_wait<0>();", "", WGMMA["linear"]),
    "a block that ends first": Fault("wgmma.cu", "cluster_sync<2>();", ";", WGMMA["linear"]),
}


NAMES = {name: name.replace(" ", "_") for name in FAULTS}


def source(fault: Fault, space: str) -> str:
    """Gives the sources with a fault, in a namespace."""
    kernel = f"{fault.situation.instruction}.cu"
    texts = {name: (FOLDER / name).read_text() for name in ("layer.cuh", kernel)}
    assert texts[fault.file].count(fault.sound) == 1, "the sound source says otherwise"
    texts[fault.file] = texts[fault.file].replace(fault.sound, fault.faulty)
    lines = "\n".join(texts.values()).splitlines()
    body = [line for line in lines if not line.startswith(("#include", "#pragma once"))]
    return "\n".join([f"namespace {space} {{", *body, "}\n"])


@pytest.fixture(scope="module")
def faulty(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    entries = [entry(fault.situation.variant, NAMES[name]) for name, fault in FAULTS.items()]
    sources = "".join(source(fault, NAMES[name]) for name, fault in FAULTS.items())
    return Emulator(tmp_path_factory.mktemp("faults"), entries, sources)


@pytest.mark.parametrize("name", FAULTS)
def test_faults_show(faulty: Emulator, name: str) -> None:
    situation = FAULTS[name].situation
    layer, x, residual = situation.layer(), situation.input(), situation.residual()
    wanted = expected(layer, x, residual)
    shown = 0
    for policy in POLICIES:
        try:
            got = faulty.run(
                situation.variant, layer, x, residual, grid=1, policy=policy, space=NAMES[name]
            )
            assert_close(got, wanted, situation.dtype)
        except AssertionError:
            shown += 1
    assert shown, "nobody notices"
    assert np.isfinite(wanted).all()
