"""Who may speak to a daemon, and at which addresses it listens.

Whoever can submit jobs can have this machine's processors and, where code is allowed, everything of
the daemon's user. So a daemon is closed: it answers to a token that lies in a file of its user's, and
listens where others could come by only over TLS.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from autosparse.errors import ConfigError

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where a daemon listens.

    Attributes:
        host: address or name.
        port: of TCP; 0 lets the system choose.
        tls_cert: file of the certificate and its chain; None for plain HTTP.
        tls_key: file of its key.
        allowed_hosts: names by which it is spoken to, beside the loopback ones and `host`.
        behind_proxy: another server in front of it speaks TLS.
    """

    host: str = "127.0.0.1"
    port: int = 8337
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    behind_proxy: bool = False

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return "http" if self.tls_cert is None else "https"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that a request may be meant for, in lower case and without ports."""
        own = () if self.host in ("0.0.0.0", "::") else (_in_url(self.host),)
        return tuple(dict.fromkeys((*_LOOPBACK_NAMES, *own, *map(str.lower, self.allowed_hosts))))

    @property
    def url(self) -> str:
        """Where it is reached from this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else _in_url(self.host)
        return f"{self.scheme}://{host}:{self.port}"

    def check(self) -> None:
        """Refuses what would let others in, or what cannot work.

        Raises:
            ConfigError: an address that others can reach without TLS, or TLS by halves.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            given = "--tls-cert" if self.tls_key is None else "--tls-key"
            raise ConfigError(
                f"TLS needs a certificate and its key, but got {given} alone; give both --tls-cert "
                "FILE and --tls-key FILE"
            )
        for file in (self.tls_cert, self.tls_key):
            if file is not None and not os.path.isfile(file):
                raise ConfigError(f"TLS needs readable files, but there is no file {file}")
        if is_loopback(self.host) or self.tls_cert is not None or self.behind_proxy:
            return
        raise ConfigError(
            f"a daemon that others can reach must speak TLS, or its token is readable on the way, but "
            f"host is {self.host}; give --tls-cert and --tls-key, or --behind-proxy if a server in "
            "front of it speaks TLS, or leave --host out and reach it through an SSH tunnel"
        )


def is_loopback(host: str) -> bool:
    """Tells whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _in_url(host: str) -> str:
    bare = host.strip("[]").lower()
    return f"[{bare}]" if ":" in bare else bare
