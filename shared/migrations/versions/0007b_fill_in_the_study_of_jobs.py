"""Fill in the study of jobs."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.indexes import create_foreign_key, create_index, fill

revision = "0007b"
down_revision = "0007a"
branch_labels = None
depends_on = None

#: Rows that others hold are left to the next migration.
_SOME = """
    UPDATE job SET study_id = image.study_id FROM image WHERE image.id = job.image_id AND job.id IN (
        SELECT id FROM job WHERE study_id IS NULL LIMIT 10000 FOR UPDATE SKIP LOCKED
    )
"""


def upgrade() -> None:
    """Fill in the column, some rows at a time, and add the indexes that hold it."""
    fill(_SOME)
    create_foreign_key(op.f("job_study_id_fkey"), "job", "study", "study_id")
    create_index("job_by_state", "job", ["project_id", "state", "priority", "study_id"])
    create_index(
        "job_of_submission",
        "job",
        ["submission_id", "study_id"],
        postgresql_where=sa.text("submission_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Take them away."""
    op.drop_index("job_of_submission", "job")
    op.drop_index("job_by_state", "job")
    op.drop_constraint(op.f("job_study_id_fkey"), "job", type_="foreignkey")
