"""Add what readers say of findings."""

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what readers say of findings."""


def downgrade() -> None:
    """Take it away."""
