"""Which rows of the kernel table become stale when a source changes: all that it can slow down."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCES = Path(__file__).parents[2] / "kernels"
# What a kernel's object includes without effect on the rows it has: types of the public interface, and
# the list of rows, to which others are added.
WITHOUT_CODE = {"include/autosparse.h", "conv/variants.inc"}


class Row(NamedTuple):
    level: str
    method: str


class Hash(NamedTuple):
    digest: str
    sources: frozenset[str]


class Configured:
    """A copy of the library's sources, configured again and again, and never built."""

    def __init__(self, folder: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.cmake, self.ninja = (shutil.which(tool, path=path) for tool in ("cmake", "ninja"))
        if not (self.cmake and self.ninja):
            pytest.skip("needs cmake and ninja, but they are not installed")
        self.sources, self.build = folder / "ker nels", folder / "build"
        shutil.copytree(SOURCES, self.sources, ignore=shutil.ignore_patterns("__pycache__", "tests"))

    def hashes(self) -> dict[Row, Hash]:
        command = [self.cmake, "-S", self.sources, "-B", self.build, "-G", "Ninja"]
        flags = [f"-DCMAKE_MAKE_PROGRAM={self.ninja}", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
        done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        rows = map(str.split, (self.build / "generated" / "source_hash.txt").read_text().splitlines())
        return {
            Row(level, method): Hash(digest, frozenset(files)) for level, method, digest, *files in rows
        }

    def includes_of_kernels(self, level: str) -> set[str]:
        """Asks the compiler itself, by the command that would compile the level's kernels."""
        commands = json.loads((self.build / "compile_commands.json").read_text())
        [entry] = [
            entry
            for entry in commands
            if entry["file"].endswith("conv/kernels.cpp") and f"isa_{level}.dir" in entry["output"]
        ]
        command = re.sub(r" -o \S+", "", entry["command"]) + " -MM"
        rule = subprocess.check_output(command, shell=True, cwd=self.build, text=True)
        files = rule.replace("\\\n", " ").replace("\\ ", "\0").split()[1:]
        paths = [Path(self.build, file.replace("\0", " ")).resolve() for file in files]
        inside = [path for path in paths if path.is_relative_to(self.sources.resolve())]
        return {str(path.relative_to(self.sources.resolve())) for path in inside}

    def edit(self, files: Sequence[str]) -> None:
        for file in files:
            path = self.sources / file
            path.write_text(path.read_text() + "// edited\n")


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Configured:
    return Configured(tmp_path_factory.mktemp("source_hash"))


def test_what_a_kernels_object_includes_is_in_its_hash(configured: Configured) -> None:
    hashes = configured.hashes()
    for level in {row.level for row in hashes}:
        covered = frozenset().union(*(hashes[row].sources for row in hashes if row.level == level))
        included = configured.includes_of_kernels(level)
        assert {"conv/px.h", "cpu/vec.h", "conv/kernels.cpp"} <= included
        assert included - WITHOUT_CODE <= covered
    # And what cuts the work, hands it out, and lays out what it reads.
    of_all = frozenset.intersection(*(found.sources for found in hashes.values()))
    assert {f"executor/{name}" for name in ("pool.cpp", "pool.h", "program.h", "tensor.h")} <= of_all
    assert {"operators/planes.cpp", "operators/planes.h", "conv/structure.cpp"} <= of_all


WINOGRAD = {"wg", "wf", "wp"}
WITHOUT_EFFECT = [
    *("conv/variants.inc", "conv/table.cpp", "conv/depthwise.cpp", "conv/dw.h", "cpu/isa.cpp"),
    *("include/autosparse.h", "executor/api.cpp", "artifact/loader.cpp", "README.md"),
]


def test_an_edit_makes_the_rows_stale_that_it_can_slow_down(configured: Configured) -> None:
    edits = [
        (
            ["conv/oc.h", "conv/mx.h", "cpu/vec_avx2.h", *WITHOUT_EFFECT],
            lambda row: row.method in {"oc", "mx"} or row.level == "avx2",
        ),
        (["conv/wg.h", "conv/winograd.cpp"], lambda row: row.method in WINOGRAD),
        # Winograd's kernels use its loops.
        (["conv/px.h"], lambda row: row.method in {"px", *WINOGRAD}),
        (["executor/pool.h"], lambda row: True),
    ]
    before = configured.hashes()
    for files, is_slowed in edits:
        configured.edit(files)
        after = configured.hashes()
        stale = {row for row in before if before[row].digest != after[row].digest}
        assert stale == set(filter(is_slowed, before)), files
        assert all(before[row].sources == after[row].sources for row in before)
        before = after
