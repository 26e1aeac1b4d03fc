"""Let studies be searched: the newest first by state, priority, flag, finding and submission."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0007b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the best scores, filled from what there is."""
    # First, for it keeps others from changing jobs: who waited for a row of ours would have us wait for him.
    op.create_table(
        "top_score",
        sa.Column("study_id", sa.Uuid(), nullable=False),
        sa.Column("class_name", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("tenth", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("top_score_job_id_fkey")),
        sa.PrimaryKeyConstraint("study_id", "class_name", "job_id", name=op.f("top_score_pkey")),
    )
    op.execute(
        "UPDATE job SET study_id = image.study_id FROM image WHERE image.id = job.image_id AND job.study_id IS NULL"
    )
    op.execute(
        """
        INSERT INTO top_score (job_id, class_name, project_id, study_id, image_id, score, tenth)
        SELECT job.id, class_name, project_id, study_id, image_id, max(score), floor(max(score) * 10)
        FROM (
            SELECT DISTINCT ON (image_id) id, project_id, study_id, image_id
            FROM job WHERE state = 'succeeded' ORDER BY image_id, id DESC
        ) AS job JOIN detection ON detection.job_id = job.id
        GROUP BY job.id, class_name, project_id, study_id, image_id
        """
    )
    op.create_index("top_score_of_class", "top_score", ["project_id", "class_name", "tenth", "study_id", "score"])
    # Last, for it keeps everybody from the table until the commit.
    op.alter_column("job", "study_id", nullable=False)


def downgrade() -> None:
    """Take them away."""
    op.drop_table("top_score")
    op.alter_column("job", "study_id", nullable=True)
