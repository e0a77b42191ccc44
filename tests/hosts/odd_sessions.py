"""Sessions that do what the request says instead of measuring."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from autosparse.progress import Progress


def run(values: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Tells of itself, and then does as it was told."""
    progress.log(f"process {os.getpid()}")
    match values["do"]:
        case "tell":
            with progress.at("compile"), progress.step("compile whole models", 2) as step:
                step.advance(2)
            return {"pid": os.getpid(), "parent": os.getppid(), **values}
        case "hang":
            time.sleep(600)
        case "raise":
            raise ValueError("no such layer")
        case "exit":
            os._exit(3)
    raise AssertionError(values)


def waited(begun: str, seconds: float) -> str:
    """Says in a file that it has begun, and after a while whose home it runs in."""
    Path(begun).touch()
    time.sleep(seconds)
    return os.environ["AUTOSPARSE_HOME"]
