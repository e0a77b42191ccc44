"""`python -m autosparse` is the command `autosparse`."""

from __future__ import annotations

from autosparse.cli import main

if __name__ == "__main__":
    main()
