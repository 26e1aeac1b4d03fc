"""Let one index find images by any flag, so that a new flag needs no migration."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.indexes import create_index

revision = "0019"
down_revision = "0016"
branch_labels = None
depends_on = None

_ONE_FOR_EACH = (
    "not_a_radiograph",
    "not_a_chest",
    "lateral_view",
    "rotated",
    "suspected_inversion",
    "empty_exposure",
    "clipped_exposure",
    "low_resolution",
    "irregular_file",
)


def upgrade() -> None:
    """Replace the indexes that each flag has."""
    where = sa.text("flags <> '{}'::text[]")
    columns = ["project_id", "study_id"]
    create_index("image_flagged", "image", columns, postgresql_include=["flags"], postgresql_where=where)
    for flag in _ONE_FOR_EACH:
        op.drop_index(f"image_{flag}", "image", if_exists=True)


def downgrade() -> None:
    """Give each flag an index again."""
    for flag in _ONE_FOR_EACH:
        where = sa.text(f"flags @> ARRAY['{flag}'::text]")
        create_index(f"image_{flag}", "image", ["project_id", "study_id"], postgresql_where=where)
    op.drop_index("image_flagged", "image")
