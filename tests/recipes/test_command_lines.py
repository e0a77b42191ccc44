"""Every command line in a recipe against the command line that there is."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recipe_files import DEPLOY, command_lines

from autosparse.cli import app

LINES = command_lines()


def options(command: Any) -> dict[str, Any]:
    return {
        name: parameter
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }


def unknown(words: list[str]) -> list[str]:
    """Gives what of a command line does not exist; verbs may hold verbs, or hand flags on."""
    root = app.command()
    command: Any = root
    flags = dict(options(command))
    wrong: list[str] = []
    rest = iter(words)
    for word in rest:
        if word.startswith("-"):
            name, _, value = word.partition("=")
            if name not in flags:
                wrong.append(name)
            elif not flags[name].is_flag and not value and next(rest, None) is None:
                wrong.append(f"{name} without a value")
        elif word in getattr(command, "commands", {}):
            command = command.commands[word]
            flags |= options(command)
        elif command is root:
            wrong.append(word)
        elif word in root.commands and words[0] in ("submit", "schedule"):
            flags |= options(root.commands[word])
    return wrong


def test_each_recipe_has_its_command_line() -> None:
    files = {name for name, _ in LINES}
    assert files == {
        "README.md",
        "docker/Dockerfile",
        "kubernetes/daemon/deployment.yaml",
        "kubernetes/search/rayjob.yaml",
        "kubernetes/weekly/raycronjob.yaml",
        "slurm/search.sbatch",
        "systemd/autosparse.env",
        "systemd/autosparse.service",
    }


@pytest.mark.parametrize(("where", "words"), LINES, ids=[f"{name}-{words[0]}" for name, words in LINES])
def test_verbs_and_flags_exist(where: str, words: list[str]) -> None:
    assert not unknown(words), f"{where}: autosparse {' '.join(words)}"


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["search", "--model", "resnet18", "--latency-budget=5ms", "-o", "x"], []),
        (["search", "--modle", "resnet18"], ["--modle"]),
        (["search", "--model"], ["--model without a value"]),
        (["serch", "--model", "resnet18"], ["serch", "--model", "resnet18"]),
        (["db", "list", "--frob"], ["--frob"]),
    ],
)
def test_what_does_not_exist_is_found(words: list[str], wrong: list[str]) -> None:
    assert unknown(words) == wrong


def test_verbs_in_the_prose_exist() -> None:
    verbs = app.command().commands
    named = {
        (str(file.relative_to(DEPLOY)), verb)
        for file in DEPLOY.rglob("*")
        if file.is_file()
        for verb in re.findall(r"`autosparse ([a-z-]+)", file.read_text())
    }
    assert named
    assert [each for each in sorted(named) if each[1] not in verbs] == []


def test_files_named_in_the_readme_exist() -> None:
    readme = (DEPLOY / "README.md").read_text()
    linked = re.findall(r"\]\(([^):]+)\)", readme)
    named = re.findall(r"(?<!exec )\bdeploy/([\w./-]+)", readme)
    assert len(linked) >= 6 and len(named) >= 6
    assert [name for name in (*linked, *named) if not (DEPLOY / name).exists()] == []
