"""`python -m autosparse` is the command `autosparse`."""

from __future__ import annotations

import sys

if not sys.flags.safe_path:
    # The current folder, which `python -m` puts first: a torch.py there is not the library.
    del sys.path[0]

from autosparse.cli import main

if __name__ == "__main__":
    main()
