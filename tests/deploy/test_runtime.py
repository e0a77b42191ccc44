"""autosparse-runtime: artifacts run with numpy alone, and all else names the whole tool."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import autosparse
from autosparse import kernels

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime"
FOREIGN = ("torch", "ray", "optuna", "pydantic", "scipy", "yaml", "typer", "safetensors", "cpuinfo")
WHEEL = tomllib.loads((RUNTIME / "pyproject.toml").read_text())["tool"]["scikit-build"]["wheel"]
LISTED: dict[str, str] = WHEEL["packages"]


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the runtime's wheel fills it, and numpy, as links, and nothing else."""
    folder = tmp_path_factory.mktemp("runtime")
    libraries = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (libraries / name).exists():
            link(libraries / name, folder / name)
    for target, source in LISTED.items():
        link((RUNTIME / source).resolve(), folder / target)
    # The linker's file is copied: what it is asked for is the folder that it lies in.
    package = folder / "autosparse.py"
    package.unlink()
    package.write_text((RUNTIME / "autosparse.py").read_text())
    link(kernels.library_path(), folder / "autosparse_runtime" / "kernels" / "_native.so")
    return folder


@pytest.fixture(scope="module")
def both(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder once the whole tool is installed there too."""
    folder = tmp_path_factory.mktemp("both")
    for path in runtime.iterdir():
        link(path.resolve(), folder / path.name)
    (folder / "autosparse.py").unlink()
    (folder / "autosparse.py").write_text((RUNTIME / "autosparse.py").read_text())
    lay_out_tool(folder)
    return folder


def lay_out_tool(folder: Path) -> None:
    for path in (ROOT / "autosparse").iterdir():
        link(path, folder / "autosparse" / path.name)
    for path in (ROOT / "kernels").iterdir():
        link(path, folder / "autosparse" / "kernels" / path.name)
    link(kernels.library_path(), folder / "autosparse" / "kernels" / "_native.so")


def run(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs code where nothing can be imported but the standard library and what lies in `folder`."""
    head = f"import sys; sys.path.insert(0, {str(folder)!r});"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", head + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_artifact_runs_with_numpy_alone(
    runtime: Path, artifact: Path, image: Tensor, tmp_path: Path
) -> None:
    np.save(tmp_path / "image.npy", image.numpy())
    code = (
        "import numpy, autosparse;"
        "model = autosparse.load(sys.argv[1], threads=1);"
        "numpy.save(sys.argv[3], model(numpy.load(sys.argv[2]))['classes']);"
        "model.measure(6); repr(model); model.close();"
        "from autosparse.patterns import parse_pattern; assert parse_pattern('1x16').name == '1x16';"
        "from autosparse import kernels;"
        "assert (kernels.include_dir() / 'autosparse.h').is_file();"
        "assert kernels.library_path().is_file();"
        f"print([name for name in {FOREIGN!r} if name in sys.modules], autosparse.__version__)"
    )
    done = run(runtime, code, str(artifact), str(tmp_path / "image.npy"), str(tmp_path / "out.npy"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"[] {autosparse.__version__}"
    with autosparse.load(artifact, threads=1) as model:
        assert np.array_equal(np.load(tmp_path / "out.npy"), model(image.numpy())["classes"])


def test_the_whole_tool_loads_without_the_heavy_libraries(artifact: Path) -> None:
    code = (
        "import sys, autosparse; autosparse.load(sys.argv[1], threads=1).close();"
        f"print([name for name in {FOREIGN!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(artifact)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def imports(path: Path) -> Iterator[str]:
    """Gives the autosparse modules that a file imports when it is imported itself."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("autosparse"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("autosparse"):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_list_of_files_is_what_load_imports_and_no_more() -> None:
    sources = {
        target.removeprefix("autosparse_runtime/")
        .removesuffix(".py")
        .removesuffix("/__init__")
        .replace("/", "."): (RUNTIME / source)
        for target, source in LISTED.items()
        if target.endswith(".py") and target.startswith("autosparse_runtime/")
    }
    # Families of patterns are found by scanning their folder, not imported by name.
    families = {
        f"patterns.families.{path.stem}"
        for path in (ROOT / "autosparse/patterns/families").glob("*.py")
    }
    wanted = {"deploy", "patterns.families"} | {
        each for each in families if not each.endswith("__init__")
    }
    known = {"__init__", "version", "errors"}
    while wanted - known:
        name = (wanted - known).pop()
        known.add(name)
        assert name in sources, f"the runtime must have autosparse.{name}: add it to its list"
        modules = {each.removeprefix("autosparse.") for each in imports(sources[name])}
        parents = {module.rpartition(".")[0] for module in modules}
        wanted |= {each for each in modules | parents if in_tree(each)}
    assert sources.keys() == known


def in_tree(name: str) -> bool:
    file = Path(*name.split(".")) if name else Path("nowhere")
    places = [ROOT / "autosparse" / file, ROOT / file if name.startswith("kernels") else ROOT / "none"]
    return any(
        place.with_suffix(".py").is_file() or (place / "__init__.py").is_file() for place in places
    )


def test_the_command_line_says_that_it_is_not_there(runtime: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-S", "-m", "autosparse", "search"],
        cwd=runtime,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    assert done.stdout == ""
    assert done.stderr == (
        "autosparse: the command line is a part of the whole tool, but what is installed here runs "
        "exported models alone (autosparse-runtime); run: pip install autosparse\n"
    )


@pytest.mark.parametrize("name", sorted(set(autosparse.__all__) - {"AutosparseError"}))
def test_public_names_load_or_say_what_they_need(runtime: Path, name: str) -> None:
    code = f"""
import autosparse
try:
    autosparse.{name}
except autosparse.AutosparseError as error:
    print(error)
"""
    done = run(runtime, code)
    assert done.returncode == 0, done.stderr
    if name in ("load", "LoadedModel"):
        assert done.stdout == ""
    else:
        assert f"autosparse.{name} is a part of the whole tool" in done.stdout
        assert "pip install autosparse\n" in done.stdout


def test_the_whole_tool_comes_first_where_both_are_installed(both: Path, artifact: Path) -> None:
    code = (
        "import autosparse; print(autosparse.__file__); autosparse.load(sys.argv[1], threads=1).close()"
    )
    done = run(both, code, str(artifact))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == both / "autosparse" / "__init__.py"


def test_a_library_that_was_removed_is_named(both: Path) -> None:
    done = run(both, "from autosparse.cli import main; main()")
    assert done.returncode == 7
    assert done.stderr == (
        "autosparse: the command line needs typer, which is not installed here; "
        "run: pip install autosparse, which brings it\n"
    )


# ---------------------------------------------------- a source tree in front of what is installed


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone's root: the sources without the kernels that a build puts beside them."""
    for name in ("autosparse", "kernels", "search_spaces"):
        link(ROOT / name, tmp_path / "clone" / name)
    return tmp_path / "clone"


@pytest.mark.parametrize(
    "arguments",
    [("-c", "import autosparse; print(autosparse.compile)"), ("-m", "autosparse", "models")],
)
def test_in_a_clone_the_installed_tool_is_what_runs(
    clone: Path, both: Path, arguments: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-S", *arguments],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(both), *sys.path[1:]])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "compile" in done.stdout or "resnet18" in done.stdout


def test_in_a_clone_without_an_install_the_error_says_what_to_do(clone: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-S", "-c", "import autosparse"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: autosparse must be built")
    assert "pip install ." in last
