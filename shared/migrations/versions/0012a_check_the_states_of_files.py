"""Check the states of files that were there before, while others write."""

from alembic import op

revision = "0012a"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Validate the constraint; doing it again does nothing."""
    op.execute("ALTER TABLE submission_file VALIDATE CONSTRAINT submission_file_state_check")


def downgrade() -> None:
    """Do nothing: what is valid may stay so."""
