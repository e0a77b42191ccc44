"""Sources are compiled without a GPU, kept, and what the compiler says is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from autosparse.errors import NoKernel
from autosparse.kernels.gpu import finishing, nvrtc
from autosparse.kernels.gpu import method as registry
from autosparse.kernels.gpu.chips import CHIPS
from autosparse.patterns.pattern import Pattern
from autosparse.records import Activation, LayerShape

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nvrtc.Source:
    monkeypatch.setenv("AUTOSPARSE_HOME", str(tmp_path))
    nvrtc.cubin.cache_clear()  # what other tests compiled is kept elsewhere
    return finishing.source_of("bf16", 8, False, residual=True, activation=Activation.RELU)


@pytest.mark.smoke
def test_machine_code_is_kept(source: nvrtc.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    code = nvrtc.cubin(source, "sm_80")
    nvrtc.cubin.cache_clear()
    monkeypatch.setattr(nvrtc, "compiled", lambda *_: pytest.fail("compiled again"))
    assert nvrtc.cubin(source, "sm_80") == code
    nvrtc.cubin.cache_clear()


def test_its_key_has_all_that_decides_it(source: nvrtc.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        dataclasses.replace(source, variant="F16, 8, false, true, RELU"),
        dataclasses.replace(source, text=source.text + "\n"),
        dataclasses.replace(source, headers=source.headers[:1]),
    ]
    keys = {each.key(target) for each in (source, *others) for target in ("sm_80", "sm_90a")}
    monkeypatch.setattr(nvrtc, "COMPILER", "cuda-bindings")  # of another version
    assert len(keys | {source.key("sm_80")}) == 9


def test_the_compilers_words_are_told(source: nvrtc.Source) -> None:
    faulty = dataclasses.replace(source, text="not a kernel;\n")
    with pytest.raises(NoKernel, match=r"says: finish.cu\(1\): error"):
        nvrtc.compiled(faulty, "sm_80")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "COMPILER", "no-such-compiler")
    shape = LayerShape(op="linear", batch_size=1, in_channels=8, out_channels=8)
    kernel = registry.get("bf16_dense__cuda_cublas")
    why = registry.why_not(kernel, shape, Pattern(), CHIPS[8, 0])
    assert why == "it needs no-such-compiler, which is not installed"
    assert nvrtc.facts() == "no-such-compiler missing"
