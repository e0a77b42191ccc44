"""The token by which a daemon knows its user: one word in a file that nobody else can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from autosparse.storage.paths import home_folder
from autosparse.storage.secret_file import SecretFile

VARIABLE = "AUTOSPARSE_TOKEN_FILE"
_TOKEN_BYTES = 32


def token_file() -> Path:
    """Gives the file of the token: the one that is named in the environment, or the one at home."""
    named = os.environ.get(VARIABLE)
    return Path(os.path.expanduser(named)) if named else home_folder() / "daemon.token"


def make_token(path: Path) -> str:
    """Gives the token in a file, and makes one there first if there is no file.

    Raises:
        ConfigError: it cannot be read or made, others may read it, or it holds no token.
    """
    return _file(path).make(secrets.token_urlsafe(_TOKEN_BYTES))


def read_token(path: Path) -> str:
    """Gives the token in a file.

    Raises:
        ConfigError: it cannot be read, others may read it, or it holds no token.
    """
    return _file(path).read()


def _file(path: Path) -> SecretFile:
    return SecretFile(
        path=path, what="the token's file", elsewhere=f"in {VARIABLE}", made_by="start the daemon"
    )
