"""Alerts carried to webhooks: signed, again and again until they are taken, and each by one daemon.

Whoever receives them is trusted with nothing: no redirect is followed, no answer is read beyond its
first lines, and one that hangs holds up nobody but itself, and that for seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from http import HTTPStatus

import httpx

from autosparse.daemon import backoff
from autosparse.daemon.access import is_loopback
from autosparse.daemon.signing import body_of, headers_of
from autosparse.errors import ConfigError, got
from autosparse.jobs.deliveries import CLAIM_S, Deliveries, Delivery
from autosparse.jobs.store import Store
from autosparse.version import __version__

log = logging.getLogger(__name__)

EVERY_S = 2.0
LIMIT_S = 10.0
"""How long a receiver may take in all."""

LONGEST_S = 86400.0
"""How long after it happened an alert is sent at most."""

_LONGEST_URL = 2000
_DIRECT = ("all://127.0.0.1", "all://localhost", "all://[::1]")


def check_webhook(url: str) -> None:
    """Refuses a webhook that cannot work, or that others could listen to.

    Raises:
        ConfigError: no URL of HTTP, or plain HTTP to another machine.
    """
    try:
        parsed = httpx.URL(url)
        host = parsed.host
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise ConfigError(f"--webhook must be a URL, but got {got(url)}: {error}") from None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if parsed.scheme not in ("http", "https") or not host or not is_plain or len(url) > _LONGEST_URL:
        raise ConfigError(
            f"--webhook must be a URL of http or https, of at most {_LONGEST_URL} characters of ASCII, "
            f"but got {got(url)}; write https://example.org/hook"
        )
    if parsed.scheme == "http" and not is_loopback(host):
        raise ConfigError(
            f"--webhook must be https, or whoever is on the way can read it, but got {got(url)}; write "
            "https://, or send it to a proxy on this machine, as http://127.0.0.1:PORT"
        )


class Courier:
    """Carries the alerts of a store to webhooks.

    Args:
        store: of jobs and alerts.
        urls: checked by `check_webhook`.
        key: by which messages are signed.
        limit_s: how long a receiver may take in all.
        first_s: after how long a message is sent again, the first time.
    """

    def __init__(
        self,
        store: Store,
        urls: Sequence[str],
        key: bytes,
        *,
        limit_s: float = LIMIT_S,
        first_s: float = backoff.FIRST_S,
    ) -> None:
        assert limit_s < CLAIM_S, "another daemon would send it meanwhile"
        self._deliveries = Deliveries(store)
        self._key = key
        self._limit_s = limit_s
        self._first_s = first_s
        self._webhooks = self._deliveries.register(urls)

    def work(self) -> int:
        """Sends what is to be sent now; gives how many messages that were.

        Raises:
            DatabaseError: the database cannot be read or written; what was sent may be sent again.
        """
        if not self._webhooks or not self._deliveries.has_work(self._webhooks, LONGEST_S):
            return 0
        self._deliveries.prepare(self._webhooks, LONGEST_S)
        claimed = self._deliveries.claim(self._webhooks)
        answers = asyncio.run(self._send_all(claimed, self._deliveries.now_s()))
        gone = set[int]()
        for delivery, (status, said) in zip(claimed, answers, strict=True):
            if status == HTTPStatus.GONE:
                gone.add(delivery.webhook_id)
            self._note(delivery, status, said)
        for webhook_id in gone:
            self._deliveries.stop(webhook_id, "the receiver is gone for good")
        return len(claimed)

    def _note(self, delivery: Delivery, status: int | None, said: str) -> None:
        where, what = _shown(delivery.url), f"alert {delivery.alert.id}"
        if status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            self._deliveries.sent(delivery, said)
            log.info("%s was taken by %s", what, where)
            return
        if status == HTTPStatus.GONE:
            self._deliveries.give_up(delivery, said)
            log.warning("%s is gone for good, and gets no more alerts until it is named anew", where)
            return
        wait_s = backoff.wait_s(delivery.attempts, self._first_s)
        if self._deliveries.now_s() + wait_s > delivery.alert.at_s + LONGEST_S:
            self._deliveries.give_up(delivery, said)
            log.error("%s was not taken by %s for a day, and is given up: %s", what, where, said)
            return
        self._deliveries.put_off(delivery, wait_s, said)
        log.warning("%s was not taken by %s, again in %.0f s: %s", what, where, wait_s, said)

    async def _send_all(
        self, deliveries: Sequence[Delivery], now_s: float
    ) -> list[tuple[int | None, str]]:
        async with httpx.AsyncClient(
            follow_redirects=False,
            timeout=self._limit_s,
            mounts=dict.fromkeys(_DIRECT),  # no proxy between processes of one machine
            headers={"user-agent": f"autosparse/{__version__}"},
        ) as client:
            return await asyncio.gather(*(self._send(client, each, now_s) for each in deliveries))

    async def _send(
        self, client: httpx.AsyncClient, delivery: Delivery, now_s: float
    ) -> tuple[int | None, str]:
        """Sends a message; gives the status, None without, and what became of it in a few words."""
        body = body_of(delivery.alert)
        headers = headers_of(delivery.message_id, now_s, body, self._key)
        headers["content-type"] = "application/json"
        try:
            # The client's own limit is one for each step: a byte now and then would outlast it.
            async with (
                asyncio.timeout(self._limit_s),
                client.stream("POST", delivery.url, content=body, headers=headers) as response,
            ):
                return response.status_code, f"answered {response.status_code}"
        except TimeoutError:
            return None, f"no answer within {self._limit_s:g} s"
        except Exception as error:  # the border: whatever a receiver does is its own affair
            return None, f"{type(error).__name__}: {error}"[:500]


def _shown(url: str) -> str:
    """Gives a URL for logs: what follows the host may be a secret."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.host}"
