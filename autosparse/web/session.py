"""The page's cookie: when it ends, signed with a key that is derived from the token.

Nothing is kept for it: every daemon with the same token knows it, and a new token ends all sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

COOKIE = "autosparse_session"
LASTS_S = 12 * 3600
_PURPOSE = b"autosparse page session 1"


def make_session(token: str, now_s: float, lasts_s: float = LASTS_S) -> str:
    """Gives the value of a new session's cookie.

    Args:
        token: the daemon's.
        now_s: seconds since the epoch.
        lasts_s: how long it is valid.
    """
    head = f"{int(now_s + lasts_s)}.{secrets.token_urlsafe(9)}"
    return f"{head}.{_signature(token, head)}"


def is_session(token: str, value: str, now_s: float) -> bool:
    """Tells whether a cookie is of a session of this token that has not ended."""
    head, _, signature = value.rpartition(".")
    ends, _, _ = head.partition(".")
    expected = _signature(token, head)
    if not secrets.compare_digest(signature.encode(), expected.encode()):
        return False
    return ends.isascii() and ends.isdecimal() and now_s < int(ends)


def set_cookie(value: str, *, secure: bool, lasts_s: float = LASTS_S) -> str:
    """Gives the header ``Set-Cookie`` that begins a session; an empty value ends it.

    Args:
        value: of `make_session`.
        secure: whether the page is reached over TLS.
        lasts_s: how long browsers keep it.
    """
    age_s = int(lasts_s) if value else 0
    text = f"{COOKIE}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict"
    return f"{text}; Secure" if secure else text


def _signature(token: str, head: str) -> str:
    key = hmac.digest(token.encode(), _PURPOSE, hashlib.sha256)
    return hmac.new(key, head.encode(), hashlib.sha256).hexdigest()
