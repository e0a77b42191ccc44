"""The image: its stages, what it copies, and who runs in it."""

from __future__ import annotations

import fnmatch
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recipe_files import DEPLOY, ROOT

from autosparse.version import __version__

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
Instruction = tuple[str, str]
# Of a Dockerfile's reference; what is left out we do not use.
KNOWN = {
    *("ARG", "FROM", "RUN", "COPY", "WORKDIR", "USER", "ENV"),
    *("VOLUME", "EXPOSE", "ENTRYPOINT", "CMD"),
}


def instructions() -> list[Instruction]:
    """Gives every instruction and its words, lines that go on joined and comments left out."""
    kept = [line for line in DOCKERFILE.read_text().splitlines() if not re.match(r"\s*#", line)]
    lines = re.sub(r"\\\n\s*", "", "\n".join(kept)).splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip()]
    return [(name, rest) for name, rest in pairs]


def stages() -> dict[str, list[Instruction]]:
    found: dict[str, list[Instruction]] = {"": []}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            name = rest.partition(" AS ")[2]
            found[name] = []
        found[name].append((word, rest))
    return found


def named(stage: str, word: str) -> list[str]:
    return [rest for each, rest in stages()[stage] if each == word]


def ignored(path: str) -> bool:
    """Tells whether the build misses a path: the last pattern for it or a folder above decides."""
    folders = [path, *map(str, Path(path).parents)][:-1]
    answer = False
    for line in DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        deep = line.removeprefix("!").startswith("**/")
        tried = [
            part for folder in folders for part in ([folder, Path(folder).name] if deep else [folder])
        ]
        if any(
            fnmatch.fnmatchcase(each, pattern) and each.count("/") == pattern.count("/")
            for each in tried
        ):
            answer = not line.startswith("!")
    return answer


def test_instructions_are_known_and_lines_are_whole() -> None:
    assert {word for word, _ in instructions()} == KNOWN
    assert all(not rest.endswith("\\") for _, rest in instructions())


def test_stages_build_on_one_pinned_python_that_the_project_takes() -> None:
    [image] = [rest for rest in named("", "ARG") if rest.startswith("PYTHON_IMAGE=")]
    version = re.fullmatch(r"PYTHON_IMAGE=python:(\d+)\.(\d+)\.\d+-slim-[a-z]+", image)
    assert version, image
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"])
    assert least
    assert tuple(map(int, version.groups())) >= tuple(map(int, least.groups()))
    assert list(stages()) == ["", "build", "runtime"]
    for stage in ("build", "runtime"):
        assert named(stage, "FROM") == [f"${{PYTHON_IMAGE}} AS {stage}"]


def test_what_is_copied_is_there_and_seen_by_the_build() -> None:
    for stage in ("build", "runtime"):
        for rest in named(stage, "COPY"):
            *sources, target = rest.split()
            if sources[0].startswith("--from="):
                assert sources == ["--from=build", "/wheels"]
                continue
            assert len(sources) == 1 or target.endswith("/")
            for source in sources:
                assert (ROOT / source).exists(), source
                assert not ignored(source), source


def test_the_build_sees_all_that_the_wheel_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {source for rest in named("build", "COPY") for source in rest.split()[:-1]}
    packages = project["tool"]["scikit-build"]["wheel"]["packages"].values()
    needed = {
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        project["tool"]["scikit-build"]["cmake"]["source-dir"],
        *packages,
    }
    assert needed <= copied


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("autosparse/cli/app.py", False),
        ("kernels/conv/variants.inc", False),
        ("kernels/tests/conformance.cpp", True),
        ("autosparse/cli/__pycache__/app.cpython-311.pyc", True),
        (".git/config", True),
        ("results/run/config.yaml", True),
        ("tests/conftest.py", True),
        ("deploy/kubernetes/daemon/deployment.yaml", True),
    ],
)
def test_nothing_else_is_sent_to_the_build(path: str, answer: bool) -> None:
    assert ignored(path) is answer


def test_versions_are_those_that_were_tested() -> None:
    installs = [rest for rest in named("runtime", "RUN") if "pip install" in rest]
    assert len(installs) == 2
    for rest in installs:
        assert rest.count("pip install") == rest.count("--constraint") == 1
    pinned = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^torch==", pinned, re.M) and re.search(r"^ray==", pinned, re.M)


def test_extras_exist() -> None:
    [extras] = [rest for rest in named("runtime", "ARG") if rest.startswith("EXTRAS=")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.removeprefix("EXTRAS=").split(",")) <= set(project["optional-dependencies"])


def test_no_registry_is_named() -> None:
    assert "://" not in "".join(rest for _, rest in instructions())


def test_it_runs_as_a_user_who_owns_the_volume() -> None:
    [user] = named("runtime", "USER")
    number = user.partition(":")[0]
    assert int(number) >= 10000
    [made] = [rest for rest in named("runtime", "RUN") if "useradd" in rest]
    assert f"--uid {number}" in made and "--home-dir /var/lib/autosparse" in made
    assert named("runtime", "VOLUME") == named("runtime", "WORKDIR") == ["/var/lib/autosparse"]
    after = [word for word, _ in stages()["runtime"]]
    assert "RUN" not in after[after.index("USER") :]


def test_signals_reach_the_command_and_the_state_is_kept() -> None:
    assert json.loads(named("runtime", "ENTRYPOINT")[0]) == ["tini", "--", "autosparse"]
    command = json.loads(named("runtime", "CMD")[0])
    assert command[command.index("--results") + 1].startswith("/var/lib/autosparse/")
    assert "AUTOSPARSE_HOME=/var/lib/autosparse/home" in named("runtime", "ENV")[0]


def test_the_name_that_is_built_has_this_version() -> None:
    texts = [DOCKERFILE.read_text(), (DEPLOY / "README.md").read_text()]
    for text in texts:
        assert set(re.findall(r"\bautosparse:(\d[\w.]*)", text)) == {__version__}
