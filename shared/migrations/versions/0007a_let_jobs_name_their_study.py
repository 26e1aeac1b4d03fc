"""Let jobs name their study, and find studies and images."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.indexes import create_index

revision = "0007a"
down_revision = "0006"
branch_labels = None
depends_on = None

_FLAGS = (
    "not_a_radiograph",
    "not_a_chest",
    "lateral_view",
    "rotated",
    "suspected_inversion",
    "empty_exposure",
    "clipped_exposure",
    "low_resolution",
)


def upgrade() -> None:
    """Add the column, empty for now, and indexes on columns that are there."""
    create_index("study_of_project", "study", ["project_id", "id"])
    for flag in _FLAGS:
        where = sa.text(f"flags @> ARRAY['{flag}'::text]")
        create_index(f"image_{flag}", "image", ["project_id", "study_id"], postgresql_where=where)
    create_index("job_of_image", "job", ["image_id", "id"])
    op.drop_index(op.f("job_image_id"), "job", if_exists=True)
    op.add_column("job", sa.Column("study_id", sa.Uuid(), nullable=True))


def downgrade() -> None:
    """Take it away."""
    create_index(op.f("job_image_id"), "job", ["image_id"])
    op.drop_column("job", "study_id")
    op.drop_index("job_of_image", "job")
    for flag in _FLAGS:
        op.drop_index(f"image_{flag}", "image")
    op.drop_index("study_of_project", "study")
