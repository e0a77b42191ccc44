"""A light install: numpy alone beside the package. Artifacts run; all else names its extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import autosparse
from autosparse import kernels

ROOT = Path(__file__).parents[2]
FOREIGN = ("torch", "ray", "optuna", "pydantic", "scipy", "yaml", "typer", "safetensors", "cpuinfo")


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package and numpy, as links, and nothing else."""
    folder = tmp_path_factory.mktemp("light")
    libraries = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (libraries / name).exists():
            (folder / name).symlink_to(libraries / name)
    package = folder / "autosparse"
    (package / "kernels").mkdir(parents=True)
    for source, target in ((ROOT / "autosparse", package), (ROOT / "kernels", package / "kernels")):
        for path in source.iterdir():
            if path.name != "__pycache__":
                (target / path.name).symlink_to(path)
    (package / "kernels" / "_native.so").symlink_to(kernels.library_path())
    return folder


def run(light: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs code where nothing can be imported but the standard library and what lies in `light`."""
    head = f"import sys; sys.path.insert(0, {str(light)!r});"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", head + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_artifact_runs_with_numpy_alone(
    light: Path, artifact: Path, image: Tensor, tmp_path: Path
) -> None:
    np.save(tmp_path / "image.npy", image.numpy())
    code = (
        "import numpy, autosparse;"
        "model = autosparse.load(sys.argv[1], threads=1);"
        "numpy.save(sys.argv[3], model(numpy.load(sys.argv[2]))['classes']);"
        "model.measure(6); repr(model); model.close();"
        f"print([name for name in {FOREIGN!r} if name in sys.modules])"
    )
    done = run(light, code, str(artifact), str(tmp_path / "image.npy"), str(tmp_path / "out.npy"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    with autosparse.load(artifact, threads=1) as model:
        assert np.array_equal(np.load(tmp_path / "out.npy"), model(image.numpy())["classes"])


def test_a_full_install_loads_without_the_heavy_libraries(artifact: Path) -> None:
    code = (
        "import sys, autosparse; autosparse.load(sys.argv[1], threads=1).close();"
        f"print([name for name in {FOREIGN!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(artifact)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [(), ("search", "--model", "resnet18"), ("--help",)])
def test_the_command_line_says_which_extra_it_needs(light: Path, arguments: tuple[str, ...]) -> None:
    done = run(light, "from autosparse.cli import main; main()", *arguments)
    assert done.returncode == 7
    assert done.stdout == ""
    assert done.stderr == (
        "autosparse: the command line needs typer, which a light install leaves out; "
        "run: pip install 'autosparse[search]'\n"
    )


@pytest.mark.parametrize("name", sorted(set(autosparse.__all__) - {"AutosparseError"}))
def test_public_names_load_or_say_which_extra_they_need(light: Path, name: str) -> None:
    code = f"""
import autosparse
try:
    autosparse.{name}
except autosparse.AutosparseError as error:
    print(error)
"""
    done = run(light, code)
    assert done.returncode == 0, done.stderr
    if name in ("load", "LoadedModel"):
        assert done.stdout == ""
    else:
        assert f"autosparse.{name} needs" in done.stdout
        assert "pip install 'autosparse[search]'" in done.stdout
