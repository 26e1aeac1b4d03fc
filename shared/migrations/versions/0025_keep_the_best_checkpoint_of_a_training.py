"""Keep the best checkpoint of a training beside its last one."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; older versions leave it empty."""
    op.add_column("training_run", sa.Column("best_checkpoint", postgresql.JSONB(astext_type=sa.Text()), nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("training_run", "best_checkpoint")
