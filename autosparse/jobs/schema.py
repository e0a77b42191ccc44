"""The tables of jobs, schedules and alerts. They may share a database with the tuning database's."""

from __future__ import annotations

import sqlalchemy as sa

from autosparse.storage.sql import Layout

LAYOUT = Layout(
    what="database of jobs",
    head="0001",
    known=("0001",),
    migrations="autosparse.jobs:migrations",
    version_table="daemon_version",
)

METADATA = sa.MetaData()
# The layout at LAYOUT.head. How an existing database gets there is told by migrations/.
JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("verb", sa.String),
    sa.Column("settings", sa.JSON),
    sa.Column("options", sa.JSON),
    sa.Column("priority", sa.Integer),
    sa.Column("hardware_id", sa.String),
    sa.Column("state", sa.String),
    sa.Column("submitted_at_s", sa.Float(53)),
    sa.Column("changed_at_s", sa.Float(53)),
    sa.Column("ready_at_s", sa.Float(53)),
    sa.Column("attempt", sa.Integer),
    sa.Column("failures", sa.Integer),
    sa.Column("owner", sa.String),
    sa.Column("lease_until_s", sa.Float(53)),
    sa.Column("ran_s", sa.Float(53)),
    sa.Column("is_cancelling", sa.Boolean),
    sa.Column("exit_code", sa.Integer),
    sa.Column("message", sa.Text),
    sa.Column("run", sa.String),
    sa.Column("snapshot", sa.JSON(none_as_null=True)),
    sa.Column("outcome", sa.JSON(none_as_null=True)),
    sa.Column("schedule_id", sa.Integer),
    sa.Column("due_at_s", sa.Float(53)),
    sa.Column("request_key", sa.String),
    sa.Column("request_hash", sa.String),
)
TRANSITIONS = sa.Table(
    "job_transitions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("job_id", sa.Integer),
    sa.Column("at_s", sa.Float(53)),
    sa.Column("before", sa.String),
    sa.Column("after", sa.String),
    sa.Column("attempt", sa.Integer),
    sa.Column("daemon", sa.String),
    sa.Column("reason", sa.Text),
)
DAEMONS = sa.Table(
    "daemons",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("host", sa.String),
    sa.Column("boot_id", sa.String),
    sa.Column("pid", sa.Integer),
    sa.Column("pid_started_s", sa.Float(53)),
    sa.Column("hardware_id", sa.String),
    sa.Column("started_at_s", sa.Float(53)),
    sa.Column("seen_at_s", sa.Float(53)),
)
SCHEDULES = sa.Table(
    "schedules",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String),
    sa.Column("cron", sa.String),
    sa.Column("timezone", sa.String),
    sa.Column("verb", sa.String),
    sa.Column("settings", sa.JSON),
    sa.Column("options", sa.JSON),
    sa.Column("catch_up", sa.String),
    sa.Column("jitter_s", sa.Float(53)),
    sa.Column("is_enabled", sa.Boolean),
    sa.Column("is_removed", sa.Boolean),
    sa.Column("created_at_s", sa.Float(53)),
    sa.Column("last_due_s", sa.Float(53)),
    sa.Column("next_at_s", sa.Float(53)),
)
OCCURRENCES = sa.Table(
    "occurrences",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("schedule_id", sa.Integer),
    sa.Column("due_at_s", sa.Float(53)),
    sa.Column("outcome", sa.String),
    sa.Column("job_id", sa.Integer),
    sa.Column("at_s", sa.Float(53)),
)
ALERTS = sa.Table(
    "alerts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at_s", sa.Float(53)),
    sa.Column("kind", sa.String),
    sa.Column("job_id", sa.Integer),
    sa.Column("schedule_id", sa.Integer),
    sa.Column("title", sa.Text),
    sa.Column("body", sa.JSON),
)
WEBHOOKS = sa.Table(
    "webhooks",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("url", sa.String),
    sa.Column("since_s", sa.Float(53)),
    sa.Column("stopped_at_s", sa.Float(53)),
)
DELIVERIES = sa.Table(
    "deliveries",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("webhook_id", sa.Integer),
    sa.Column("alert_id", sa.Integer),
    sa.Column("message_id", sa.String),
    sa.Column("state", sa.String),
    sa.Column("attempts", sa.Integer),
    sa.Column("next_at_s", sa.Float(53)),
    sa.Column("changed_at_s", sa.Float(53)),
    sa.Column("answer", sa.Text),
)
LEFTOVERS = sa.Table(
    "leftovers",
    METADATA,
    sa.Column("job_id", sa.Integer, primary_key=True),
    sa.Column("run", sa.String),
)
