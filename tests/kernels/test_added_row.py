"""A kernel is added by its row, an instruction set by its vectors, its level and its detection.

Both in a copy of the sources whose table has nothing else, built without optimisation; then the
conformance suite, which nobody told of them, has to find and run them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = """
AS_KERNEL(f32, generic, px, 8, 2, 3)
AS_KERNEL(f32, added, px, 8, 2, 2)
"""
LEVEL = "add_level(added EXTENDS generic LANES 4 VECTORS cpu/vec_added.h SOURCES conv/kernels.cpp)\n\n"
DETECTION = "AS_GRANTS(added) { return true; }\n"


def insert(file: Path, before: str, text: str) -> None:
    content = file.read_text()
    assert content.count(before) == 1, f"{file.name} must have one place for it"
    file.write_text(content.replace(before, text + before))


def run(command: list[str | Path], **environment: str) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portable library with one row of the known level and one of an added level."""
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if cmake is None or shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("needs cmake and a C++ compiler")
    folder = tmp_path_factory.mktemp("added")
    sources, build = folder / "kernels", folder / "build"
    shutil.copytree(ROOT / "kernels", sources, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    (sources / "conv" / "variants.inc").write_text(ROWS)
    vectors = (sources / "cpu" / "vec_generic.h").read_text()
    (sources / "cpu" / "vec_added.h").write_text(re.sub("generic", "added", vectors))
    insert(sources / "CMakeLists.txt", "set(sources\n", LEVEL)
    insert(sources / "cpu" / "isa.cpp", "AS_GRANTS(generic)", DETECTION)
    run([cmake, "-S", sources, "-B", build, "-DAUTOSPARSE_PORTABLE=ON", "-DCMAKE_BUILD_TYPE=Debug"])
    run([cmake, "--build", build, "--parallel", str(len(os.sched_getaffinity(0)))])
    return build / "_native.so"


@pytest.mark.long
def test_the_conformance_suite_finds_them_by_itself(library: Path) -> None:
    suite = "tests/kernels/test_kernel_conformance.py"
    told = run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", suite, "-k", "kernel and __"],
        NATIVE_LIBRARY=str(library),
    )
    for name in ("onexn8__generic_px2x12", "onexn8__added_px2x8"):
        assert f"test_geometries[f32_conv_{name}] PASSED" in told, told
    assert "failed" not in told and "skipped" not in told.splitlines()[-1]
