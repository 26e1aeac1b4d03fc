"""Let images be found whose files break the standard."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.indexes import create_index

revision = "0016"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index of the flag."""
    where = sa.text("flags @> ARRAY['irregular_file'::text]")
    create_index("image_irregular_file", "image", ["project_id", "study_id"], postgresql_where=where)


def downgrade() -> None:
    """Take it away."""
    op.drop_index("image_irregular_file", "image")
