"""Weight files: whole ones pass, everything else is refused with the reason, torch stays out of it."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from autosparse.errors import ModelError
from autosparse.models.weight_files import check_weights


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(8, 3, 3, 3, generator=generator),
        "bn.num_batches_tracked": torch.tensor(7),
        "half": torch.zeros(5, dtype=torch.float16),
    }


def torch_bytes(legacy: bool) -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": state()}, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def safetensors_bytes() -> bytes:
    return safetensors.numpy.save({"w": np.ones((4, 4), np.float32)})


WHOLE = {
    "new.pt": torch_bytes(False),
    "old.th": torch_bytes(True),
    "w.safetensors": safetensors_bytes(),
}


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        check_weights(path)
    return str(caught.value)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_pass(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(WHOLE[name])
    check_weights(path)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(name: str, part: float, tmp_path: Path) -> None:
    whole = WHOLE[name]
    assert str(tmp_path) in refusal(tmp_path / name, whole[: int(part * len(whole))])


def test_one_byte_short_is_refused(tmp_path: Path) -> None:
    for name, whole in WHOLE.items():
        refusal(tmp_path / name, whole[:-1])


def test_a_flipped_byte_in_a_zip_is_refused(tmp_path: Path) -> None:
    whole = bytearray(WHOLE["new.pt"])
    whole[WHOLE["new.pt"].index(state()["conv.weight"].numpy().tobytes()) + 9] ^= 0xFF
    assert "checksum" in refusal(tmp_path / "w.pt", bytes(whole))


def test_other_things_are_named(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("readme.txt", "hello")
    path = tmp_path / "w.pt"
    assert "empty" in refusal(path, b"")
    assert "web page" in refusal(path, b"\n<!DOCTYPE html><html>404</html>")
    assert "Git LFS pointer" in refusal(path, b"version https://git-lfs.github.com/spec/v1\n")
    assert "other archive" in refusal(path, archive.getvalue())
    assert "another kind" in refusal(path, bytes(range(200)))
    assert "another kind" in refusal(path, pickle.dumps({"a": 1}))
    assert "damaged" in refusal(tmp_path / "w.safetensors", b"not safetensors at all")
    assert "no tensor" in refusal(tmp_path / "w.safetensors", safetensors.numpy.save({}))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.th", "w"])
def test_failed_downloads_are_named_whatever_they_are_called(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert "is a web page" in refusal(path, b"\n<!DOCTYPE html><html>404</html>")
    assert "is a web page" in refusal(path, b"<html>" + b" " * 1000)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 46830571\n"
    assert "is a Git LFS pointer; fetch the file itself" in refusal(path, pointer)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.pt", "No such file"), (tmp_path, "it is a folder")):
        with pytest.raises(ModelError, match=reason):
            check_weights(path)


@pytest.mark.smoke
def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    stream = io.BytesIO()
    torch.save({"a": Evil()}, stream, _use_new_zipfile_serialization=False)
    path = tmp_path / "evil.th"
    path.write_bytes(stream.getvalue())
    with suppress(ModelError):
        check_weights(path)
    assert not (tmp_path / "ran").exists()


def test_torch_is_not_imported() -> None:
    code = "import sys; import autosparse.models.weight_files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
