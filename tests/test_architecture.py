"""Rules of the house: imports point one way, heavy imports stay where they belong, files stay small."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke
ROOT = Path(__file__).parent.parent
# A module imports only from its own line and the lines above it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "version", "source_tree"),
    ("units", "progress", "statistics", "closing"),
    ("storage",),
    ("local_ray", "node_labels"),
    ("factories",),
    ("values",),
    ("patterns",),
    ("records",),
    ("plans",),
    ("hardware",),
    ("models", "data"),
    ("graph",),
    ("kernels",),
    ("measuring",),
    ("workers",),
    ("devices",),
    ("database",),
    ("tuning",),
    ("deploy",),
    ("engine",),
    ("search_spaces",),
    ("searching",),
    ("reconstruct",),
    ("train",),
    ("run_folders",),
    ("report",),
    ("sessions",),
    ("hosts",),
    ("compare",),
    ("config",),
    ("pipeline",),
    ("frames",),
    ("jobs",),
    ("schedules",),
    ("daemon",),
    ("web",),
    ("serving",),
    ("client",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# Stages that must not know each other although one stands above the other.
STRANGERS = {
    "searching": {"kernels", "database", "tuning", "engine", "train", "models", "data", "graph"},
    "reconstruct": {"kernels", "devices", "database", "tuning", "engine", "searching", "train"},
    "train": {"kernels", "devices", "database", "tuning", "engine", "searching"},
    "kernels": {"models", "data", "graph"},
    "devices": {"models", "data", "graph"},
    "database": {"models", "data", "graph"},
    "tuning": {"models", "data", "graph", "kernels"},
    "report": {
        "kernels",
        "devices",
        "database",
        "tuning",
        "engine",
        "searching",
        "train",
        "models",
        "data",
        "graph",
    },
}
ONLY_IN = {
    "ray": (
        "local_ray.py",
        "searching/joining.py",
        "searching/lending.py",
        "searching/parallel.py",
        "hosts/nodes.py",
        "hosts/on_node.py",
        "train/parallel.py",
    ),
    "optuna": ("searching/",),
    "pynvml": ("hardware/gpu.py",),
    "torch": (
        *(
            "models/",
            "data/",
            "graph/",
            "engine/",
            "reconstruct/",
            "train/",
            "plans/pruning.py",
            "pipeline/",
            "compare/",
            "kernels/gpu/",
            "devices/kinds/cuda/",
        ),
        *("deploy/onnx_file.py", "deploy/state_dict.py"),
    ),
    "triton": ("kernels/gpu/",),
    "cuda": ("kernels/gpu/",),
    "typer": ("cli/",),
    "httpx": ("client/", "daemon/"),
    "sqlalchemy": ("storage/sql.py", "database/", "jobs/", "schedules/", "searching/storage.py"),
    "cronsim": ("schedules/times.py",),
    "pandas": ("frames/",),
    "plotly": ("report/", "compare/picture.py", "frames/"),
    "onnxruntime": ("compare/peers/", "compare/int8.py", "deploy/onnx_file.py"),
    "openvino": ("compare/peers/",),
}


def sources() -> dict[str, Path]:
    """Gives every Python file of the package, by its path inside it."""
    files = {
        str(path.relative_to(ROOT / "autosparse")): path
        for path in sorted((ROOT / "autosparse").rglob("*.py"))
    }
    for folder in ("kernels", "search_spaces"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            files[f"{folder}/{path.relative_to(ROOT / folder)}"] = path
    return files


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Gives the dotted names that a file imports at run time."""
    names: set[str] = set()
    tree = tree_of(path)
    typing_only: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


FILES = sources()


@pytest.mark.parametrize("name", FILES)
def test_imports_point_downward(name: str) -> None:
    stage = name.split("/")[0].removesuffix(".py")
    if stage in ("__init__", "__main__"):
        return
    for target in imported(FILES[name]):
        parts = target.split(".")
        if parts[0] != "autosparse" or len(parts) < 2 or parts[1] not in RANK:
            continue
        assert RANK[parts[1]] <= RANK[stage], f"{name} imports {target}, which stands above it"
        assert parts[1] not in STRANGERS.get(stage, ()), f"{name} must not know {target}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_stay_in_their_place(library: str) -> None:
    for name, path in FILES.items():
        if any(target.split(".")[0] == library for target in imported(path)):
            assert name.startswith(ONLY_IN[library]), f"{name} imports {library}"


@pytest.mark.parametrize("name", FILES)
def test_files_stay_small(name: str) -> None:
    lines = FILES[name].read_text().count("\n")
    assert lines <= 520, f"{name} has {lines} lines; split it"


@pytest.mark.parametrize("name", FILES)
def test_only_the_command_line_prints(name: str) -> None:
    if name.startswith("cli"):
        return
    calls = [
        node.lineno
        for node in ast.walk(tree_of(FILES[name]))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not calls, f"{name} prints on lines {calls}"


def test_importing_autosparse_loads_nothing_heavy() -> None:
    code = (
        "import sys, autosparse, autosparse.config, autosparse.run_folders; "
        "print([m for m in ('torch','ray','optuna','scipy','pandas','plotly','sklearn') "
        "if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
