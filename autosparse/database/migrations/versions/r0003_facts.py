"""Rows say under which facts of the day they were taken: microcode, driver, libraries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from autosparse.errors import DatabaseError

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEY = (
    "hardware_id",
    "kernel",
    "kernel_hash",
    "shape",
    "pattern",
    "kept",
    "config",
    "dtype",
    "threads",
    "policy",
    "state",
    "facts",
)


def upgrade() -> None:
    """Adds the column, and makes it a part of the key; of rows so far the facts are not known."""
    with op.batch_alter_table("measurements") as table:
        table.add_column(sa.Column("facts", sa.String(255), nullable=False, server_default=""))
        table.drop_constraint("one_row_per_key", type_="unique")
        table.create_unique_constraint("one_row_per_key", list(_KEY))


def downgrade() -> None:
    """Refuses: rows of two microcodes would become rows of one key."""
    raise DatabaseError(
        "a tuning database goes back to an earlier layout only if no row is lost, but there rows that "
        "were taken under two microcodes have one key"
    )
