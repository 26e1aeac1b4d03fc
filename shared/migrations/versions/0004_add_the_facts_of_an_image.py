"""Add what decoding has shown of an image."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what decoding has shown of an image."""
    op.add_column("image", sa.Column("row_spacing_mm", sa.Float(), nullable=True))
    op.add_column("image", sa.Column("column_spacing_mm", sa.Float(), nullable=True))
    op.add_column("image", sa.Column("spacing_source", sa.Text(), nullable=True))
    op.add_column("image", sa.Column("grey_levels", postgresql.ARRAY(sa.Text()), nullable=True))
    op.add_column("image", sa.Column("flags", postgresql.ARRAY(sa.Text()), nullable=True))
    op.add_column("image", sa.Column("chest_scores", postgresql.JSONB(astext_type=sa.Text()), nullable=True))


def downgrade() -> None:
    """Take it away."""
    for name in ("chest_scores", "flags", "grey_levels", "spacing_source", "column_spacing_mm", "row_spacing_mm"):
        op.drop_column("image", name)
