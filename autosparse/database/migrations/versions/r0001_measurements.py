"""Makes the table of measurements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from autosparse.errors import DatabaseError

revision = "0001"
down_revision = None
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
)


def upgrade() -> None:
    """Makes the table, its unique key and the index that look-ups use."""
    op.create_table(
        "measurements",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("hardware_id", sa.String(64), nullable=False),
        sa.Column("kernel", sa.String(128), nullable=False),
        sa.Column("kernel_hash", sa.String(64), nullable=False),
        sa.Column("shape", sa.String(255), nullable=False),
        sa.Column("pattern", sa.String(64), nullable=False),
        sa.Column("kept", sa.Integer, nullable=False),
        sa.Column("config", sa.String(255), nullable=False),
        sa.Column("dtype", sa.String(16), nullable=False),
        sa.Column("threads", sa.Integer, nullable=False),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("median_us", sa.Float(53)),
        sa.Column("ci_low_us", sa.Float(53)),
        sa.Column("ci_high_us", sa.Float(53)),
        sa.Column("repeats", sa.Integer, nullable=False),
        sa.Column("sparsity", sa.Float(53), nullable=False),
        sa.Column("flops_kept", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("measured_at", sa.String(40), nullable=False),
        sa.Column("version", sa.String(40), nullable=False),
        sa.UniqueConstraint(*_KEY, name="one_row_per_key"),
    )
    op.create_index("by_layer", "measurements", ["hardware_id", "shape", "pattern", "kept"])


def downgrade() -> None:
    """Refuses: rows are never thrown away by a change of layout."""
    raise DatabaseError(
        "a tuning database goes back only to an earlier layout, but the first has none before it"
    )
