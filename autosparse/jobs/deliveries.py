"""Which alerts were sent to which webhooks, and which are still to be sent.

A delivery is claimed before it is sent: it is then put off by as long as sending may take. Whoever
claimed it and died therefore holds nothing back for long, and two daemons do not send the same at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from autosparse.jobs.alerts import Alert
from autosparse.jobs.rows import for_update
from autosparse.jobs.schema import ALERTS, DELIVERIES, WEBHOOKS
from autosparse.jobs.store import Store
from autosparse.storage.serial import Record

CLAIM_S = 60.0
"""How long a delivery is put off by whoever claims it; sending must take less."""

_WAITING, _SENT, _GIVEN_UP = "waiting", "sent", "given up"
_ID_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Record):
    """One alert to one webhook.

    Attributes:
        id: its number.
        webhook_id: the webhook's.
        url: the webhook's.
        message_id: by which the receiver knows it, however often it is sent.
        attempts: how often it was sent, this time included once it is claimed.
        state: ``waiting``, ``sent`` or ``given up``.
        next_at_s: when it is sent next, if it waits.
        answer: what the receiver said last, in a few words.
        alert: what is sent.
    """

    id: int
    webhook_id: int
    url: str
    message_id: str
    attempts: int
    state: str
    next_at_s: float
    answer: str
    alert: Alert


class Deliveries:
    """The deliveries of a store.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def register(self, urls: Sequence[str]) -> list[int]:
        """Makes webhooks known; gives their numbers.

        A new one gets what happens from now on. One that had been stopped gets that too, as whoever
        names it again wants it.
        """
        return [self._register(url) for url in dict.fromkeys(urls)]

    def _register(self, url: str) -> int:
        known = sa.select(WEBHOOKS).where(WEBHOOKS.c.url == url).with_for_update()
        with self._store.writing() as connection:
            now_s = self._store.now_s(connection)
            new = {"since_s": now_s, "stopped_at_s": None}
            try:
                with connection.begin_nested():
                    connection.execute(sa.insert(WEBHOOKS).values(url=url, **new))
            except sa.exc.IntegrityError:  # it is known, perhaps since this instant
                pass
            row = connection.execute(known).mappings().one()
            if row["stopped_at_s"] is not None:
                stopped = WEBHOOKS.c.id == row["id"]
                connection.execute(sa.update(WEBHOOKS).where(stopped).values(new))
            return int(row["id"])

    def has_work(self, webhooks: Sequence[int], oldest_s: float) -> bool:
        """Tells whether something is to be sent to some webhooks; only looks.

        Args:
            webhooks: their numbers.
            oldest_s: how old an alert may be that is sent for the first time.
        """
        with self._store.reading() as connection:
            now_s = self._store.now_s(connection)
            for query in (_new(webhooks, now_s - oldest_s), _due(webhooks, now_s)):
                if connection.execute(query.limit(1)).first() is not None:
                    return True
        return False

    def prepare(self, webhooks: Sequence[int], oldest_s: float) -> None:
        """Makes a delivery of every alert that some webhooks have not got; see `has_work`."""
        with self._store.writing() as connection:
            now_s = self._store.now_s(connection)
            # Whoever holds the webhooks' rows is the only one to make deliveries for them.
            held = sa.select(WEBHOOKS.c.id).where(WEBHOOKS.c.id.in_(webhooks)).order_by(WEBHOOKS.c.id)
            connection.execute(held.with_for_update()).all()
            for webhook_id, alert_id in connection.execute(_new(webhooks, now_s - oldest_s)).all():
                values = {
                    "webhook_id": webhook_id,
                    "alert_id": alert_id,
                    "message_id": f"msg_{secrets.token_hex(_ID_BYTES)}",
                    "state": _WAITING,
                    "attempts": 0,
                    "next_at_s": now_s,
                    "changed_at_s": now_s,
                    "answer": "",
                }
                connection.execute(sa.insert(DELIVERIES).values(values))

    def claim(self, webhooks: Sequence[int], limit: int = 20) -> list[Delivery]:
        """Takes what is to be sent now to some webhooks, the oldest first; nobody else has it."""
        with self._store.writing() as connection:
            now_s = self._store.now_s(connection)
            numbers = list(connection.execute(for_update(_due(webhooks, now_s)).limit(limit)).scalars())
            taken = sa.update(DELIVERIES).where(DELIVERIES.c.id.in_(numbers))
            changes = {"attempts": DELIVERIES.c.attempts + 1, "next_at_s": now_s + CLAIM_S}
            connection.execute(taken.values(changes))
            return _whole(connection, DELIVERIES.c.id.in_(numbers))

    def sent(self, delivery: Delivery, answer: str) -> None:
        """Notes that a receiver has a delivery."""
        self._change(delivery, state=_SENT, answer=answer)

    def put_off(self, delivery: Delivery, wait_s: float, answer: str) -> None:
        """Notes that a receiver did not take a delivery, which is sent again after a while."""
        self._change(delivery, answer=answer, wait_s=wait_s)

    def give_up(self, delivery: Delivery, answer: str) -> None:
        """Notes that a delivery is not sent again."""
        self._change(delivery, state=_GIVEN_UP, answer=answer)

    def stop(self, webhook_id: int, answer: str) -> None:
        """Notes that a webhook is gone: nothing is sent there any more, until it is named again."""
        with self._store.writing() as connection:
            now_s = self._store.now_s(connection)
            webhook = sa.update(WEBHOOKS).where(WEBHOOKS.c.id == webhook_id)
            connection.execute(webhook.values(stopped_at_s=now_s))
            left = (DELIVERIES.c.webhook_id == webhook_id, DELIVERIES.c.state == _WAITING)
            values = {"state": _GIVEN_UP, "answer": answer, "changed_at_s": now_s}
            connection.execute(sa.update(DELIVERIES).where(*left).values(values))

    def of_alert(self, alert_id: int) -> list[Delivery]:
        """Gives the deliveries of an alert, to each webhook one."""
        with self._store.reading() as connection:
            return _whole(connection, DELIVERIES.c.alert_id == alert_id)

    def now_s(self) -> float:
        """Gives what time it is where the deliveries are kept."""
        with self._store.reading() as connection:
            return self._store.now_s(connection)

    def _change(self, delivery: Delivery, *, wait_s: float | None = None, **values: Any) -> None:
        with self._store.writing() as connection:
            now_s = self._store.now_s(connection)
            if wait_s is not None:
                values["next_at_s"] = now_s + wait_s
            # Unless somebody else has sent it since: then that counts.
            mine = (DELIVERIES.c.id == delivery.id, DELIVERIES.c.attempts == delivery.attempts)
            waits = DELIVERIES.c.state == _WAITING
            changed = sa.update(DELIVERIES).where(*mine, waits)
            connection.execute(changed.values(changed_at_s=now_s, **values))


def _new(webhooks: Sequence[int], after_s: float) -> sa.Select[Any]:
    """Gives webhook and alert of every delivery that is still to be made."""
    made = sa.exists().where(
        DELIVERIES.c.webhook_id == WEBHOOKS.c.id, DELIVERIES.c.alert_id == ALERTS.c.id
    )
    return (
        sa.select(WEBHOOKS.c.id, ALERTS.c.id)
        .join_from(WEBHOOKS, ALERTS, ALERTS.c.at_s >= WEBHOOKS.c.since_s)
        .where(WEBHOOKS.c.id.in_(webhooks), WEBHOOKS.c.stopped_at_s.is_(None))
        .where(ALERTS.c.at_s > after_s, ~made)
        .order_by(ALERTS.c.id, WEBHOOKS.c.id)
    )


def _due(webhooks: Sequence[int], now_s: float) -> sa.Select[Any]:
    due = (DELIVERIES.c.state == _WAITING, DELIVERIES.c.next_at_s <= now_s)
    query = sa.select(DELIVERIES.c.id).where(DELIVERIES.c.webhook_id.in_(webhooks), *due)
    return query.order_by(DELIVERIES.c.id)


def _whole(connection: sa.Connection, which: sa.ColumnElement[bool]) -> list[Delivery]:
    own = ("id", "webhook_id", "message_id", "attempts", "state", "next_at_s", "answer")
    columns = [*(DELIVERIES.c[name] for name in own), WEBHOOKS.c.url]
    alert = [column.label(f"alert_{column.name}") for column in ALERTS.c]
    query = (
        sa.select(*columns, *alert)
        .join_from(DELIVERIES, ALERTS, ALERTS.c.id == DELIVERIES.c.alert_id)
        .join(WEBHOOKS, WEBHOOKS.c.id == DELIVERIES.c.webhook_id)
        .where(which)
        .order_by(DELIVERIES.c.id)
    )
    return [
        Delivery(
            alert=Alert(**{column.name: row[f"alert_{column.name}"] for column in ALERTS.c}),
            **{name: row[name] for name in (*own, "url")},
        )
        for row in connection.execute(query).mappings()
    ]
