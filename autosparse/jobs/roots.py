"""Which files a job may name: those below folders that whoever started the daemon has named.

Whoever may submit jobs shall not thereby read any file of the daemon's user, nor run code as that user.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autosparse.errors import ConfigError, got


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """What jobs may read.

    Attributes:
        folders: name to folder; a job writes ``NAME/rest/of/path``, or the path itself.
        allow_code: whether a job may name factories (``file.py:function``), which are run.
    """

    folders: Mapping[str, Path] = field(default_factory=dict)
    allow_code: bool = False

    def resolve(self, named: str, what: str) -> str:
        """Gives the absolute path of a file that a job names, links followed.

        Args:
            named: ``NAME/rest``, or an absolute path.
            what: the setting that names it, for messages.

        Raises:
            ConfigError: it lies in none of the folders.
        """
        path = Path(os.path.expanduser(named))
        name, _, rest = named.partition("/")
        if not path.is_absolute() and name in self.folders:
            path = self.folders[name] / rest
        try:
            # A link inside that leads outside counts as what it leads to.
            real = Path(os.path.realpath(path)) if path.is_absolute() else None
            inside = real is not None and any(map(real.is_relative_to, self._real()))
        except ValueError:  # a name that no file has
            inside = False
        if not inside:
            raise ConfigError(
                f"{what} must lie in a folder that jobs may read, but got {got(named)}; write "
                f"NAME/rest of one of these: {self._named()}; or start the daemon with another --root "
                "NAME=DIR"
            )
        return str(real)

    def check_code(self, source: str, what: str) -> None:
        """Refuses a factory unless code is allowed.

        Raises:
            ConfigError: it is one, and code is not allowed.
        """
        if not self.allow_code:
            raise ConfigError(
                f"{what} must name no code, but got {got(source)}: a factory runs as the daemon's "
                "user; start the daemon with --allow-code if all who hold its token may do that"
            )

    def _real(self) -> list[Path]:
        return [Path(os.path.realpath(folder)) for folder in self.folders.values()]

    def _named(self) -> str:
        return ", ".join(f"{name} ({folder})" for name, folder in self.folders.items()) or "none"
