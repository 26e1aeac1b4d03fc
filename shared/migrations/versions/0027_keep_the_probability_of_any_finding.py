"""Keep the probability that an image shows any finding."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the probability of a job's result."""
    op.add_column("job", sa.Column("abnormality", sa.REAL(), nullable=True))


def downgrade() -> None:
    """Take it away."""
    op.drop_column("job", "abnormality")
