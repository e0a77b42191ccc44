"""Where the daemon is, and whether a token may be sent there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from autosparse.daemon.access import is_loopback
from autosparse.errors import ConfigError, got
from autosparse.storage.serial import Record

VARIABLE = "AUTOSPARSE_SERVER"
DEFAULT = "http://127.0.0.1:8337"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address(Record):
    """Where a daemon answers.

    Attributes:
        url: without a slash at its end.
        is_tls: whether what is said is encrypted on the way.
        is_here: whether it is reached within this machine.
    """

    url: str
    is_tls: bool
    is_here: bool


def find_address(named: str | None = None) -> Address:
    """Gives where the daemon is: as named, else as the environment says, else on this machine.

    Raises:
        ConfigError: it is no such address, or the token would be readable on the way there.
    """
    name, text = "--server", named
    if text is None:
        name, text = VARIABLE, os.environ.get(VARIABLE) or DEFAULT
    text = text.strip()
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise _no_address(name, text) from None
    is_plain = text.isprintable() and text.isascii() and not any(c in text for c in ' "<>\\^`{|}')
    if parts.scheme not in ("http", "https") or not host or not is_plain:
        raise _no_address(name, text)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise _no_address(name, text.rpartition("@")[2])
    is_tls, is_here = parts.scheme == "https", is_loopback(host)
    if not is_tls and not is_here:
        raise ConfigError(
            f"{name} must be an https address where it is another machine's, or the token is readable "
            f"on the way, but got {got(text)}; write https://{parts.netloc}, or reach it through a "
            f"tunnel: ssh -L 8337:127.0.0.1:{parts.port or 8337} {host}"
        )
    return Address(url=text.rstrip("/"), is_tls=is_tls, is_here=is_here)


def _no_address(name: str, text: str) -> ConfigError:
    return ConfigError(
        f"{name} must be the address of a daemon, its scheme, host and port, but got {got(text)}; "
        f"write {DEFAULT}"
    )
