"""Add the sessions of the console, so that signing out ends one on the server."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "console_session",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_key.id"], name=op.f("console_session_api_key_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("console_session_pkey")),
    )


def downgrade() -> None:
    """Take it away."""
    op.drop_table("console_session")
