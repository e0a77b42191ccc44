"""Folders and files named beyond ASCII, under a locale that knows ASCII alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autosparse import factories
from autosparse.cli import encoding, output
from autosparse.errors import ModelError

NAME = "Pr\N{LATIN SMALL LETTER U WITH DIAERESIS}fung-\N{CJK UNIFIED IDEOGRAPH-6A21}"
ASCII = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
}


def shell(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **ASCII, "AUTOSPARSE_HOME": str(folder / NAME / "home")}
    return subprocess.run(
        [sys.executable, "-m", "autosparse", *words], env=environment, cwd=folder, capture_output=True
    )


def test_names_beyond_ascii_are_read_and_shown(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    done = shell(tmp_path, "runs", "list", "--out", f"{NAME}/results")
    assert b"Traceback" not in done.stderr + done.stdout
    assert done.returncode in (0, 2), done.stderr
    missing = shell(tmp_path, "search", "--model", f"{NAME}/net.py:build", "--dry-run")
    assert missing.returncode == 2
    assert b"Traceback" not in missing.stderr
    assert b"Pr\\xfcfung-\\u6a21" in missing.stderr, "an ASCII terminal is shown the codes"


def test_the_command_goes_on_in_utf8_mode() -> None:
    code = "import sys; from autosparse.cli import encoding; encoding.settle(); " + (
        "print(sys.flags.utf8_mode, sys.getfilesystemencoding(), ascii(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, NAME], env={**os.environ, **ASCII}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "utf-8", ascii([NAME])]


def test_json_is_escaped_where_stdout_is_ascii(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for coding in ("ascii", "utf-8"):
        path = tmp_path / coding
        with path.open("w", encoding=coding) as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            encoding.settle()
            output.emit_json({"name": NAME, "raw": "\udcc3"} if coding == "ascii" else {"name": NAME})
        assert json.loads(path.read_text(coding))["name"] == NAME
    assert NAME in (tmp_path / "utf-8").read_text("utf-8")


def test_a_factory_in_a_folder_of_undecodable_name_is_run(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xc3\xbc\xff"))
    folder.mkdir()
    (folder / "net.py").write_text("def build():\n    return 7\n")
    assert factories.load(f"{folder}/net.py:build", ModelError)() == 7
