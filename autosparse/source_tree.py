"""What to do where the source tree stands in front of an installed package.

Python looks into the current folder first, so that ``python -c "import autosparse"`` in a clone finds
the folder `autosparse/` of the sources, which lacks the built kernels. What is installed is meant.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_PACKAGE = "autosparse"


def is_unbuilt(folder: Path) -> bool:
    """Whether a folder of the module path holds the sources of the package without its kernels."""
    package = folder / _PACKAGE
    return (package / "__init__.py").is_file() and not (package / "kernels").is_dir()


def use_installed() -> None:
    """Puts the installed package in the place of the one that is being imported from its sources.

    Raises:
        ImportError: none is installed.
    """
    folders = [folder for folder in sys.path if not is_unbuilt(Path(folder))]
    spec = PathFinder.find_spec(_PACKAGE, folders)
    if spec is None or spec.loader is None:
        raise ImportError(
            f"autosparse must be built before it can be used, but {Path(__file__).parent} holds its "
            "sources alone and it is installed nowhere else; run: pip install . (or make install)"
        )
    for name in [name for name in sys.modules if name.startswith(f"{_PACKAGE}.")]:
        del sys.modules[name]
    package = module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    spec.loader.exec_module(package)
