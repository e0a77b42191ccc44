"""The token by which a daemon knows its user: one word in a file that nobody else can read."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

from autosparse.errors import ConfigError
from autosparse.storage.files import read_bytes
from autosparse.storage.paths import home_folder

VARIABLE = "AUTOSPARSE_TOKEN_FILE"
_TOKEN_BYTES = 32
_SHORTEST = 16
_LONGEST_BYTES = 4096


def token_file() -> Path:
    """Gives the file of the token: the one that is named in the environment, or the one at home."""
    named = os.environ.get(VARIABLE)
    return Path(os.path.expanduser(named)) if named else home_folder() / "daemon.token"


def make_token(path: Path) -> str:
    """Gives the token in a file, and makes one there first if there is no file.

    Raises:
        ConfigError: it cannot be read or made, others may read it, or it holds no token.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole before it has its name, so that a kill leaves no file without a token.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # of mode 600
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(f"{secrets.token_urlsafe(_TOKEN_BYTES)}\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.link(name, path)
        finally:
            os.unlink(name)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(
            f"the token's file must be writable, but got {path}: {error.strerror}; name another in "
            f"{VARIABLE}"
        ) from None
    return read_token(path)


def read_token(path: Path) -> str:
    """Gives the token in a file.

    Raises:
        ConfigError: it cannot be read, others may read it, or it holds no token.
    """
    try:
        mode = path.stat().st_mode
        text = read_bytes(path)[:_LONGEST_BYTES].decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(
            f"the token's file must be readable, but got {path}: {why}; name it in {VARIABLE}, or "
            "start the daemon, which makes it"
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"the token's file must be its user's alone, but {path} has mode {stat.S_IMODE(mode):o}; "
            f"run: chmod 600 {path}"
        )
    if len(text) < _SHORTEST or not text.isprintable() or " " in text:
        raise ConfigError(
            f"the token's file must hold one word of {_SHORTEST} characters or more, but {path} does "
            "not; remove it, and the daemon makes another"
        )
    return text
