"""Where the recipes are, and the command lines that stand in them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
MANIFESTS = sorted(file for file in KUBERNETES.rglob("*.yaml") if file.name != "kustomization.yaml")

# What ends a command in a shell; redirections are no words of it either.
_ENDS = {"|", "||", "&&", ";", "&", ")", ">", "2>"}


def documents(file: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def shell_lines(text: str) -> list[str]:
    """Gives whole lines; those of comments without their mark if they are examples, set in by three."""
    joined = re.sub(r"\\\n[# ]*", " ", text)
    lines = []
    for line in joined.splitlines():
        if line.startswith("#"):
            line = line[4:] if line.startswith("#   ") else ""
        lines.append(line)
    return lines


def fenced(markdown: str) -> str:
    return "\n".join(re.findall(r"^```\w*\n(.*?)^```", markdown, re.M | re.S))


def words_of(line: str) -> list[str]:
    """Gives the words of a line of a shell; none of one that ends within quotes."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();|&<>")
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:
        return []


def autosparse_commands(words: list[str]) -> Iterator[list[str]]:
    """Gives the words after `autosparse` as a command, and after a script that hands them on."""
    for at, word in enumerate(words):
        rest = words[at + 1 :]
        end = next((i for i, each in enumerate(rest) if each in _ENDS), len(rest))
        begins = (
            at == 0 or words[at - 1] in {*_ENDS, "-"} or (words[:2] == ["docker", "exec"] and at == 3)
        )
        if begins and re.fullmatch(r"(/.*/)?autosparse", word):
            yield rest[:end]
        elif word.endswith("search.sbatch") and "sbatch" in words[:at]:
            yield ["search", *rest[:end]]


def in_text(file: Path) -> Iterator[list[str]]:
    text = file.read_text()
    for flags in re.findall(r"^#?SERVE_FLAGS=(.*)", text, re.M):
        yield ["serve", *shlex.split(flags)]
    for line in shell_lines(fenced(text) if file.suffix == ".md" else text):
        line = line.removeprefix("ExecStart=")
        yield from autosparse_commands(words_of(line))


def in_yaml(value: Any) -> Iterator[list[str]]:
    """Gives the arguments of containers of our image, and the entry points of jobs."""
    if isinstance(value, dict):
        if "entrypoint" in value:
            yield from autosparse_commands(shlex.split(value["entrypoint"]))
        if "args" in value and "command" not in value:
            yield list(value["args"])
        for each in value.values():
            yield from in_yaml(each)
    elif isinstance(value, list):
        for each in value:
            yield from in_yaml(each)


def command_lines() -> list[tuple[str, list[str]]]:
    """Gives every command line of autosparse in a recipe, and the file it stands in."""
    found: list[tuple[str, list[str]]] = []
    for file in sorted(DEPLOY.rglob("*")):
        name = str(file.relative_to(DEPLOY))
        if file.suffix in (".md", ".service", ".sbatch", ".env"):
            found += [(name, words) for words in in_text(file)]
        elif file.suffix == ".yaml":
            found += [(name, words) for each in documents(file) for words in in_yaml(each)]
        elif file.name == "Dockerfile":
            for each in re.findall(r"^CMD (\[.*\])$", file.read_text(), re.M):
                found.append((name, json.loads(each)))
    return found
