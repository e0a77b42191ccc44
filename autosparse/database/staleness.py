"""What is stale: per device, how many rows are of what there is now, and why the others are not.

Nothing is measured again for being stale alone: a run that needs a row and finds it stale measures it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from autosparse import hardware
from autosparse.database.table import Stale, TuningDatabase
from autosparse.records import Measurement
from autosparse.storage.serial import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness(Record):
    """What the rows of one device are of.

    Attributes:
        hardware_id: the device.
        is_here: whether the id is that of this host's CPU.
        rows: all of its rows.
        current: rows of what there is now.
        changed: kernel to its rows, where its sources, flags or compiler have changed since.
        gone: kernel to its rows, where there is none of that name any more.
        facts: rows by the microcode, driver or libraries they were taken under, where these are others
            now.
        today: what there is now instead; empty where it is not known, as for other hosts.
    """

    hardware_id: str
    is_here: bool
    rows: int
    current: int
    changed: Mapping[str, int] = field(default_factory=dict)
    gone: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)
    today: str = ""

    @property
    def stale(self) -> int:
        """Rows that would be measured again."""
        return self.rows - self.current


def freshness(
    url: str | None = None, *, database: TuningDatabase | None = None
) -> tuple[Freshness, ...]:
    """Says of every device what its rows are of, in the order of their ids.

    Args:
        url: the database.
        database: an open database to use instead of `url`.

    Raises:
        DatabaseError: it cannot be read.
    """
    store = database or TuningDatabase(url, create=False)
    here = hardware.hardware_id()
    former = set(hardware.former_ids())
    by_device: dict[str, list[Measurement]] = defaultdict(list)
    for row in store.rows():
        own = row.key.hardware_id
        by_device[here if own in former else own].append(row)
    return tuple(
        _freshness(store, device, rows, is_here=device == here)
        for device, rows in sorted(by_device.items())
    )


def _freshness(
    store: TuningDatabase, device: str, rows: list[Measurement], *, is_here: bool
) -> Freshness:
    reasons = [(store.why_stale(row), row.key) for row in rows]
    counts = {
        reason: Counter(
            key.facts if reason is Stale.FACTS else key.kernel for why, key in reasons if why is reason
        )
        for reason in Stale
    }
    return Freshness(
        hardware_id=device,
        is_here=is_here,
        rows=len(rows),
        current=sum(why is None for why, _ in reasons),
        changed=dict(sorted(counts[Stale.CHANGED].items())),
        gone=dict(sorted(counts[Stale.GONE].items())),
        facts=dict(sorted(counts[Stale.FACTS].items())),
        today="; ".join(sorted({store.current_facts(device, key.kernel) for _, key in reasons} - {""})),
    )
