"""Makes the tables of jobs and transitions, daemons, schedules and due times, alerts and deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from autosparse.errors import DatabaseError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _key() -> sa.Column[int]:
    # AUTOINCREMENT: a number that was a removed job's is never given to another one.
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=True)


def _text(name: str, length: int, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, server_default=default)


def _time(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Float(53), nullable=nullable)


def upgrade() -> None:
    """Makes the tables, and the indexes by which jobs are claimed and listed."""
    _jobs()
    _daemons()
    _schedules()
    _alerts()
    _leftovers()


def _jobs() -> None:
    op.create_table(
        "jobs",
        _key(),
        _text("verb", 32),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        _text("hardware_id", 64),
        _text("state", 16),
        _time("submitted_at_s"),
        _time("changed_at_s"),
        _time("ready_at_s"),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        _text("owner", 64),
        _time("lease_until_s", nullable=True),
        _time("ran_s"),
        sa.Column("is_cancelling", sa.Boolean, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("message", sa.Text, nullable=False),
        _text("run", 255),
        sa.Column("snapshot", sa.JSON),
        sa.Column("outcome", sa.JSON),
        sa.Column("schedule_id", sa.Integer),
        _time("due_at_s", nullable=True),
        sa.Column("request_key", sa.String(255)),
        _text("request_hash", 64),
        sa.UniqueConstraint("request_key", name="one_job_per_request_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_in_line", "jobs", ["state", "priority", "id"])
    op.create_index("jobs_by_schedule", "jobs", ["schedule_id", "state"])
    op.create_table(
        "job_transitions",
        _key(),
        sa.Column("job_id", sa.Integer, nullable=False),
        _time("at_s"),
        sa.Column("before", sa.String(16)),
        _text("after", 16),
        sa.Column("attempt", sa.Integer, nullable=False),
        _text("daemon", 64),
        sa.Column("reason", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("transitions_by_job", "job_transitions", ["job_id", "id"])


def _daemons() -> None:
    op.create_table(
        "daemons",
        sa.Column("id", sa.String(64), primary_key=True),
        _text("host", 255),
        _text("boot_id", 64),
        sa.Column("pid", sa.Integer, nullable=False),
        _time("pid_started_s"),
        _text("hardware_id", 64),
        _time("started_at_s"),
        _time("seen_at_s"),
    )


def _schedules() -> None:
    op.create_table(
        "schedules",
        _key(),
        _text("name", 200),
        _text("cron", 200),
        _text("timezone", 64),
        _text("verb", 32),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        _text("catch_up", 8),
        _time("jitter_s"),
        sa.Column("is_enabled", sa.Boolean, nullable=False),
        sa.Column("is_removed", sa.Boolean, nullable=False),
        _time("created_at_s"),
        _time("last_due_s"),
        _time("next_at_s", nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "occurrences",
        _key(),
        sa.Column("schedule_id", sa.Integer, nullable=False),
        _time("due_at_s"),
        _text("outcome", 16),
        sa.Column("job_id", sa.Integer),
        _time("at_s"),
        sa.UniqueConstraint("schedule_id", "due_at_s", name="once_per_due_time"),
        sqlite_autoincrement=True,
    )


def _alerts() -> None:
    op.create_table(
        "alerts",
        _key(),
        _time("at_s"),
        _text("kind", 32),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("schedule_id", sa.Integer),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.UniqueConstraint("job_id", "kind", name="once_per_happening"),
        sqlite_autoincrement=True,
    )
    op.create_index("alerts_by_time", "alerts", ["at_s"])
    op.create_table(
        "webhooks",
        _key(),
        sa.Column("url", sa.String(2000), nullable=False),
        _time("since_s"),
        _time("stopped_at_s", nullable=True),
        sa.UniqueConstraint("url", name="once_per_url"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "deliveries",
        _key(),
        sa.Column("webhook_id", sa.Integer, nullable=False),
        sa.Column("alert_id", sa.Integer, nullable=False),
        _text("message_id", 64),
        _text("state", 16),
        sa.Column("attempts", sa.Integer, nullable=False),
        _time("next_at_s"),
        _time("changed_at_s"),
        sa.Column("answer", sa.Text, nullable=False),
        sa.UniqueConstraint("webhook_id", "alert_id", name="once_per_webhook"),
        sqlite_autoincrement=True,
    )
    op.create_index("deliveries_in_line", "deliveries", ["state", "next_at_s"])
    op.create_index("deliveries_by_alert", "deliveries", ["alert_id"])


def _leftovers() -> None:
    # Of jobs that are forgotten: what is still to be deleted on disk.
    op.create_table(
        "leftovers",
        sa.Column("job_id", sa.Integer, primary_key=True, autoincrement=False),
        _text("run", 255),
    )


def downgrade() -> None:
    """Refuses: jobs are never thrown away by a change of layout."""
    raise DatabaseError(
        "a database of jobs goes back only to an earlier layout, but the first has none before it"
    )
