"""Rows say in which state of the host they were taken, and what else ran meanwhile."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from autosparse.errors import DatabaseError

revision = "0002"
down_revision = "0001"
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
)


def upgrade() -> None:
    """Adds the columns, and makes the state a part of the key; of rows so far it is not known."""
    with op.batch_alter_table("measurements") as table:
        table.add_column(sa.Column("state", sa.String(16), nullable=False, server_default=""))
        table.add_column(sa.Column("handover_ns", sa.Float(53)))
        table.add_column(sa.Column("disturbed", sa.Text, nullable=False, server_default=""))
        table.drop_constraint("one_row_per_key", type_="unique")
        table.create_unique_constraint("one_row_per_key", list(_KEY))


def downgrade() -> None:
    """Refuses: rows of two states would become rows of one key."""
    raise DatabaseError(
        "a tuning database goes back to an earlier layout only if no row is lost, but there rows of "
        "two states of a host have one key"
    )
