"""Find the open jobs of a submission."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.indexes import create_index

revision = "0003b"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    create_index(
        "job_open",
        "job",
        ["submission_id"],
        postgresql_where=sa.text(
            "submission_id IS NOT NULL AND state IN ('queued', 'preparing', 'ready', 'detecting')"
        ),
    )


def downgrade() -> None:
    """Take it away."""
    op.drop_index("job_open", "job")
