"""Runs the steps on the connection that `autosparse.storage.sql` hands over."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    target_metadata=None,
)
context.run_migrations()
