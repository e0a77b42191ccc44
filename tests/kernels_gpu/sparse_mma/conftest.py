from __future__ import annotations

import shutil

import pytest

from tests.kernels_gpu.sparse_mma.emulated import Emulator, entry
from tests.kernels_gpu.sparse_mma.situations import VARIANTS


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    if shutil.which("g++") is None:
        pytest.skip("no g++, which compiles the emulated machine")
    return Emulator(tmp_path_factory.mktemp("emulator"), [entry(each) for each in VARIANTS])
