"""One word in a file that nobody but its user can read: made once, and read from then on."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from autosparse.errors import ConfigError
from autosparse.storage.files import read_bytes

_SHORTEST = 16
_LONGEST_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFile:
    """Such a file.

    Attributes:
        path: the file.
        what: what it is called in messages.
        elsewhere: how another one is named.
        made_by: what makes it.
    """

    path: Path
    what: str
    elsewhere: str
    made_by: str

    def make(self, word: str) -> str:
        """Gives the word in the file, and writes this one there first if there is no file.

        Raises:
            ConfigError: it cannot be read or made, others may read it, or it holds no such word.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Whole before it has its name, so that a kill leaves no file without a word.
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")  # 600
            try:
                with os.fdopen(handle, "w") as stream:
                    stream.write(f"{word}\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                os.link(name, self.path)
            finally:
                os.unlink(name)
        except FileExistsError:
            pass
        except OSError as error:
            raise ConfigError(
                f"{self.what} must be writable, but got {self.path}: {error.strerror}; name another "
                f"{self.elsewhere}"
            ) from None
        return self.read()

    def read(self) -> str:
        """Gives the word in the file.

        Raises:
            ConfigError: it cannot be read, others may read it, or it holds no such word.
        """
        try:
            mode = self.path.stat().st_mode
            text = read_bytes(self.path)[:_LONGEST_BYTES].decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise ConfigError(
                f"{self.what} must be readable, but got {self.path}: {why}; name it {self.elsewhere}, "
                f"or {self.made_by}, which makes it"
            ) from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                f"{self.what} must be its user's alone, but {self.path} has mode "
                f"{stat.S_IMODE(mode):o}; run: chmod 600 {self.path}"
            )
        if len(text) < _SHORTEST or not text.isprintable() or " " in text:
            raise ConfigError(
                f"{self.what} must hold one word of {_SHORTEST} characters or more, but {self.path} "
                "does not; remove it, and the daemon makes another"
            )
        return text
