"""Add samples of the queue and points of training curves."""

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add samples of the queue and points of training curves."""


def downgrade() -> None:
    """Take it away."""
