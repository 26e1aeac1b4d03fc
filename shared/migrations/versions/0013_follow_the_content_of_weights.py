"""Follow weights by their content, and keep what was noted when a training was asked for."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both columns; older versions leave them as they are."""
    op.add_column("model", sa.Column("content_sha256", sa.Text(), nullable=True))
    op.add_column(
        "training_run",
        sa.Column("notes", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
    )


def downgrade() -> None:
    """Take them away."""
    op.drop_column("training_run", "notes")
    op.drop_column("model", "content_sha256")
