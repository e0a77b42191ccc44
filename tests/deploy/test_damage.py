"""Damaged, truncated, changed, foreign and newer files are refused, each with what is wrong."""

from __future__ import annotations

import ctypes
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autosparse
from autosparse.errors import ArtifactError
from autosparse.kernels.native import BAD_FILE, native

_ZEROS = b"0" * 64


def status(content: bytes) -> int:
    """Loads from memory; gives the status, 0 where the file was taken."""
    program = native().as_program_load_memory(content, len(content), 1, 0)
    if not program:
        assert native().as_last_error(), "a refusal must have a reason"
        return int(native().as_last_status())
    native().as_program_free(program)
    return 0


def refusal(content: bytes) -> str:
    assert status(content) == BAD_FILE
    return str(native().as_last_error().decode())


def sealed(content: bytes, change: Callable[[dict[str, Any], bytearray], None]) -> bytes:
    """Changes header and data, and makes the hashes fit."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    data = bytearray(content[8 + length :])
    change(header, data)
    header["__metadata__"] |= {
        "data_sha256": hashlib.sha256(data).hexdigest(),
        "header_sha256": _ZEROS.decode(),
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    text = text.replace(_ZEROS, hashlib.sha256(text).hexdigest().encode(), 1)
    return len(text).to_bytes(8, "little") + text + bytes(data)


def write(data: bytearray, header: dict[str, Any], name: str, cell: int, value: int) -> None:
    begin = header[name]["data_offsets"][0] + 4 * cell
    data[begin : begin + 4] = value.to_bytes(4, "little", signed=True)


@pytest.fixture(scope="module")
def content(artifact: Path) -> bytes:
    return artifact.read_bytes()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of a few kilobytes, for the tests that go over all of it."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.autosparse"
    layer = nn.Conv2d(2, 2, 1).eval()
    autosparse.export(layer, (torch.randn(1, 2, 3, 3),), path, measure=False, threads=1)
    return path.read_bytes()


def test_the_whole_file_is_taken_and_resealing_keeps_it_whole(content: bytes) -> None:
    assert status(content) == 0
    assert status(sealed(content, lambda header, data: None)) == 0


def test_every_truncation_is_refused(tiny: bytes) -> None:
    for size in [*range(0, len(tiny), 64), 1, 7, 8, 9, len(tiny) - 1]:
        assert status(tiny[:size]) == BAD_FILE, size
    assert "must be whole" in refusal(tiny[:-1])
    assert "must be whole" in refusal(tiny[:500])
    assert status(tiny + b"\0") == BAD_FILE


def test_every_changed_byte_is_refused(tiny: bytes) -> None:
    generator = random.Random(0)
    for place in range(len(tiny)):
        changed = bytearray(tiny)
        changed[place] ^= 1 << generator.randrange(8)
        assert status(bytes(changed)) == BAD_FILE, place


@pytest.mark.smoke
def test_changes_are_named(content: bytes) -> None:
    length = int.from_bytes(content[:8], "little")
    data = bytearray(content)
    data[-1] ^= 1
    assert "the data of an artifact must match its SHA-256" in refusal(bytes(data))
    manifest = content.replace(b'\\"model\\":\\"net\\"', b'\\"model\\":\\"ten\\"', 1)
    assert len(manifest) == len(content) and manifest != content
    assert "the header of an artifact must match its SHA-256" in refusal(manifest)
    swapped = bytearray(content)
    swapped[8 + length - 1] = ord("\n")
    assert "header" in refusal(bytes(swapped))


@pytest.mark.parametrize("seed", range(20))
def test_random_headers_are_refused(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(50):
        header = b"{" + generator.randbytes(generator.randrange(300))
        assert status(len(header).to_bytes(8, "little") + header) == BAD_FILE


@pytest.mark.parametrize(
    "header",
    [
        "{}", "{", "{]", '{"a"', '{"a":', '{"a":{}}', '{"a":{"dtype":"F32"}}', '{"a":[1]}', '{"a":1}',
        '{"__metadata__":{"a":1}}', '{"__metadata__":{"a":"\\ud800"}}', '{"__metadata__":{"a":"\\x"}}',
        '{"__metadata__":{"a":"b","a":"c"}}', '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999999999]}}',
        '{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}',
        '{"__metadata__":{"format":"pt"}}', '{"__metadata__":{"format":"autosparse"}}',
    ],
)  # fmt: skip
def test_made_up_headers_are_refused(header: str) -> None:
    assert status(len(header).to_bytes(8, "little") + header.encode()) == BAD_FILE


def test_other_files_and_newer_formats_are_named(content: bytes) -> None:
    assert "of another kind" in refusal(b"\x7fELF" + bytes(100))
    assert "of another kind" in refusal(b"PK\x03\x04" + bytes(100))

    def newer(header: dict[str, Any], data: bytearray) -> None:
        header["__metadata__"]["format_version"] = "3"

    said = refusal(sealed(content, newer))
    assert "format version 1 to 2" in said and "has 3" in said and "newer autosparse" in said


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("name", "cell", "value", "said"),
    [
        ("program.ops", 0, 99, "weights must have the shape"),
        ("program.ops", 1, 9, "input_count"),
        ("program.ops", 2, -5, "tensor ids"),
        ("program.ops", 2, 1 << 30, "tensor ids"),
        ("program.ops", 10, -1, "output must be a tensor id"),
        ("program.ops", 11, 1 << 20, "residual"),
        ("program.ops", 12, 77, "activation"),
        ("program.ops", 13, 1 << 20, "refer only to kernels"),
        ("program.ops", 14, 1 << 30, "weights"),
        ("program.ops", 16, 0, "stride"),
        ("program.ops", 18, 1 << 30, "padding"),
        ("program.ops", 24, 0, "groups"),
        ("program.ops", 27, 16, "group_start"),
        ("program.tensors", 0, 7, "type"),
        ("program.tensors", 1, 0, "at least 1"),
        ("program.tensors", 2, -3, "at least 1"),
        ("program.tensors", 3, (1 << 31) - 1, "2^31 elements"),
        ("program.inputs", 0, 1 << 20, "only its own tensors"),
        ("program.outputs", 0, -1, "only its own tensors"),
        ("op.1.group_start", 1, 1 << 20, "group_start"),
        ("op.1.group_start", 3, 1, "kept must have as many entries"),
        ("op.1.kept", 0, 24, "kept must name input channels"),
        ("op.1.kept", 0, -1, "kept must name input channels"),
        ("op.1.kept", 1, 0, "kept"),
    ],
)
def test_numbers_that_break_a_rule_are_refused_though_the_hashes_fit(
    content: bytes, name: str, cell: int, value: int, said: str
) -> None:
    assert said in refusal(sealed(content, lambda header, data: write(data, header, name, cell, value)))


@pytest.mark.parametrize("name", ["program.ops", "program.tensors", "program.kernels", "op.0.weight"])
def test_missing_arrays_are_named(content: bytes, name: str) -> None:
    def rename(header: dict[str, Any], data: bytearray) -> None:
        header["other"] = header.pop(name)

    assert "weight" in refusal(sealed(content, rename)) or name in refusal(sealed(content, rename))


def test_arrays_that_overlap_leave_holes_or_lie_outside_are_refused(content: bytes) -> None:
    def shift(by: int) -> Callable[[dict[str, Any], bytearray], None]:
        def change(header: dict[str, Any], data: bytearray) -> None:
            place = header["op.0.weight"]["data_offsets"]
            header["op.0.weight"]["data_offsets"] = [place[0] + by, place[1] + by]

        return change

    for by in (64, 1 << 40):
        assert "one behind the other" in refusal(sealed(content, shift(by)))
    assert "multiple of 64" in refusal(sealed(content, shift(4)))

    def longer(header: dict[str, Any], data: bytearray) -> None:
        header["op.0.weight"]["shape"] = [1 << 40, 1 << 40, 3, 3]

    assert "too many elements" in refusal(sealed(content, longer))


def test_random_numbers_in_the_tables_are_refused_or_run(content: bytes) -> None:
    """Whatever gets past the checks must be safe: a crash would end this process."""
    generator = random.Random(0)
    numbers = (0, 1, 2, 3, 8, 16, -1, 255, 1 << 20, (1 << 31) - 1, -(1 << 31))
    for _ in range(300):

        def change(header: dict[str, Any], data: bytearray) -> None:
            name = generator.choice(["program.ops", "program.tensors", "op.1.group_start", "op.1.kept"])
            begin, end = header[name]["data_offsets"]
            write(
                data, header, name, generator.randrange((end - begin) // 4), generator.choice(numbers)
            )

        status(sealed(content, change))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("inputs", [], "inputs"),
        ("operators", ["a"], "operators"),
        ("layer_operators", [0, 1, 2, 3, 99], "layers"),
        ("sources", [0, 1, 7], "outputs"),
        ("result", {"tuple": [0, 5]}, "result"),
        ("result", "text", "result"),
        ("extra", 1, "manifest"),
        ("inputs", 5, "manifest"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    content: bytes, tmp_path: Path, key: str, value: Any, said: str
) -> None:
    def change(header: dict[str, Any], data: bytearray) -> None:
        manifest = json.loads(header["__metadata__"]["manifest"]) | {key: value}
        header["__metadata__"]["manifest"] = json.dumps(manifest)

    path = tmp_path / "net.autosparse"
    path.write_bytes(sealed(content, change))
    with pytest.raises(ArtifactError, match=said):
        autosparse.load(path, threads=1)


def test_loading_from_nowhere_is_refused() -> None:
    assert not native().as_program_load_memory(None, 100, 1, 0)
    assert native().as_last_status() == BAD_FILE
    assert not native().as_program_load(None, 1, 0)
    assert native().as_last_status() < 0
    buffer = ctypes.create_string_buffer(16)
    assert not native().as_program_load_memory(buffer, 16, 0, 0)


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    conv = nn.Conv2d(4, 4, 1)
    path = tmp_path_factory.mktemp("sharing") / "net.autosparse"
    autosparse.export(nn.Sequential(conv, conv), (torch.randn(1, 4, 5, 5),), path, measure=False)
    return path.read_bytes()


@pytest.mark.parametrize("value", [-1, 2, 1 << 30])
def test_weights_of_operators_that_do_not_exist_or_come_later_are_refused(
    sharing: bytes, value: int
) -> None:
    assert status(sharing) == 0
    for cell in (0, 1):
        changed = sealed(
            sharing, lambda header, data, at=cell: write(data, header, "program.shared", at, value)
        )
        assert "weights of earlier operators only" in refusal(changed)


def test_one_entry_per_operator_must_say_what_is_shared(sharing: bytes) -> None:
    def longer(header: dict[str, Any], data: bytearray) -> None:
        header["program.shared"] = {**header["program.ops"], "shape": [2 * 28]}

    # Two arrays in one place are refused before; either way the file is not taken.
    assert status(sealed(sharing, longer)) == BAD_FILE
