"""Native kernels and the executor that runs them.

`spec` lists the kernels and says what each can run, `binding` builds, loads and runs programs of fused
operators, `layer` makes programs of one layer. The C++ sources lie beside; see README.md.

Programs in other languages include `include_dir()`'s autosparse.h and link against `library_path()`.
"""

from __future__ import annotations

from autosparse.kernels.native import include_dir, library_path

__all__ = ["include_dir", "library_path"]
