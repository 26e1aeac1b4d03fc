"""Let jobs outlive the cancelling of a submission where others count on them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let jobs outlive the cancelling of a submission where others count on them."""
    op.add_column("job", sa.Column("counted_on", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    """Take it away."""
    op.drop_column("job", "counted_on")
