"""Messages to webhooks as Standard Webhooks has them (standardwebhooks.com): what is said, and signed.

A receiver knows by the signature that a message comes from here and is whole, by its time that it is no
old one that somebody sends again, and by its id whether it has seen it before.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path

from autosparse.errors import ConfigError
from autosparse.jobs.alerts import Alert
from autosparse.storage.paths import home_folder
from autosparse.storage.secret_file import SecretFile

_PREFIX = "whsec_"
_SECRET_BYTES = 32
_FEWEST_BYTES = 24
_MOST_BYTES = 64


def secret_file() -> Path:
    """Gives the file of the secret where none is named."""
    return home_folder() / "webhook.secret"


def make_secret(path: Path) -> bytes:
    """Gives the secret in a file, and makes one there first if there is no file.

    Raises:
        ConfigError: it cannot be read or made, others may read it, or it holds no such secret.
    """
    word = _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    file = SecretFile(
        path=path,
        what="the webhooks' secret file",
        elsewhere="with --webhook-secret-file",
        made_by="start the daemon with --webhook",
    )
    return _key(file.make(word), path)


def _key(word: str, path: Path) -> bytes:
    try:
        key = base64.b64decode(word.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not _FEWEST_BYTES <= len(key) <= _MOST_BYTES:
        raise ConfigError(
            f"the webhooks' secret file must hold {_PREFIX} and {_FEWEST_BYTES} to {_MOST_BYTES} bytes "
            f"in base64, but {path} does not; remove it, and the daemon makes another"
        )
    return key


def body_of(alert: Alert) -> bytes:
    """Gives what is sent of an alert: JSON in ASCII, the same every time."""
    known = {"alert_id": alert.id, "schedule_id": alert.schedule_id, "title": alert.title}
    said = {"type": alert.kind, "timestamp": _written(alert.at_s), "data": {**known, **alert.body}}
    return json.dumps(said, allow_nan=False, separators=(",", ":")).encode()


def headers_of(message_id: str, at_s: float, body: bytes, key: bytes) -> dict[str, str]:
    """Gives the headers that name and sign a message.

    Args:
        message_id: the same however often it is sent.
        at_s: when it is sent, seconds since the epoch.
        body: what is sent.
        key: that the receiver has too.
    """
    at = str(int(at_s))
    signed = b".".join((message_id.encode(), at.encode(), body))
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{signature}",
    }


def _written(at_s: float) -> str:
    at = datetime.fromtimestamp(at_s, UTC)
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
