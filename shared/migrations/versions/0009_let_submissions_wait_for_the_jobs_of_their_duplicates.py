"""Let a submission wait for the jobs that its duplicates count on."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.indexes import create_index

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what finds such jobs."""
    create_index(
        "job_counted_on",
        "job",
        ["id"],
        postgresql_where=sa.text("counted_on AND state IN ('queued', 'preparing', 'ready', 'detecting')"),
    )
    create_index(
        "submission_file_duplicate",
        "submission_file",
        ["job_id", "submission_id"],
        postgresql_where=sa.text("state = 'duplicate'"),
    )


def downgrade() -> None:
    """Take it away."""
    op.drop_index("submission_file_duplicate", "submission_file")
    op.drop_index("job_counted_on", "job")
