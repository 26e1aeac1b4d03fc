"""Let studies be searched: the newest first by state, priority, flag, finding and submission."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
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
    """Add what a search reads, and fill it from what there is."""
    op.create_index("study_of_project", "study", ["project_id", "id"])
    for flag in _FLAGS:
        where = sa.text(f"flags @> ARRAY['{flag}'::text]")
        op.create_index(f"image_{flag}", "image", ["project_id", "study_id"], postgresql_where=where)

    op.add_column("job", sa.Column("study_id", sa.Uuid(), nullable=True))
    op.execute("UPDATE job SET study_id = image.study_id FROM image WHERE image.id = job.image_id")
    op.alter_column("job", "study_id", nullable=False)
    op.create_foreign_key(op.f("job_study_id_fkey"), "job", "study", ["study_id"], ["id"])
    op.drop_index(op.f("job_image_id"), "job")
    op.create_index("job_of_image", "job", ["image_id", "id"])
    op.create_index("job_by_state", "job", ["project_id", "state", "priority", "study_id"])
    op.create_index(
        "job_of_submission",
        "job",
        ["submission_id", "study_id"],
        postgresql_where=sa.text("submission_id IS NOT NULL"),
    )

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


def downgrade() -> None:
    """Take it away."""
    op.drop_table("top_score")
    op.drop_index("job_of_submission", "job")
    op.drop_index("job_by_state", "job")
    op.drop_index("job_of_image", "job")
    op.create_index(op.f("job_image_id"), "job", ["image_id"])
    op.drop_column("job", "study_id")
    for flag in _FLAGS:
        op.drop_index(f"image_{flag}", "image")
    op.drop_index("study_of_project", "study")
