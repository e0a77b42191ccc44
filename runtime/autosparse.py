"""Makes the folder beside this file the package `autosparse`; pyproject.toml says why."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_FOLDER = Path(__file__).with_name("autosparse_runtime")
_SPEC = spec_from_file_location(
    "autosparse", _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)]
)
if _SPEC is None or _SPEC.loader is None:
    raise ImportError(f"autosparse-runtime must have its files in {_FOLDER}; install it again")
_PACKAGE = sys.modules["autosparse"] = module_from_spec(_SPEC)
_SPEC.loader.exec_module(_PACKAGE)

if __name__ == "__main__":  # python -m autosparse
    from autosparse.errors import missing_library

    _missing = missing_library(ModuleNotFoundError(name="autosparse.cli"), "the command line")
    print(f"autosparse: {_missing}", file=sys.stderr)
    sys.exit(_missing.exit_code)
