"""Add what readers say of findings."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ACTIONS = "'accept', 'reject', 'change', 'draw', 'no_finding', 'complete', 'undo', 'redo'"


def upgrade() -> None:
    """Add what readers say of findings."""
    op.create_table(
        "review_event",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("reader", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=True),
        sa.Column("drawn", sa.Integer(), nullable=True),
        sa.Column("undoes", sa.Integer(), nullable=True),
        sa.Column("class_id", sa.Integer(), nullable=True),
        sa.Column("class_name", sa.Text(), nullable=True),
        sa.Column("x_min_px", sa.Float(), nullable=True),
        sa.Column("y_min_px", sa.Float(), nullable=True),
        sa.Column("x_max_px", sa.Float(), nullable=True),
        sa.Column("y_max_px", sa.Float(), nullable=True),
        sa.Column("min_score", sa.Float(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(f"action IN ({_ACTIONS})", name=op.f("review_event_action_check")),
        sa.CheckConstraint(
            "(action IN ('undo', 'redo')) = (undoes IS NOT NULL)", name=op.f("review_event_undoes_check")
        ),
        sa.CheckConstraint(
            "(action = 'complete') = (min_score IS NOT NULL)", name=op.f("review_event_min_score_check")
        ),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("review_event_pkey")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("review_event_job_id_fkey")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("review_event_project_id_fkey")),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("review_event_image_id_fkey")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("review_event_model_id_fkey")),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_key.id"], name=op.f("review_event_api_key_id_fkey")),
        sa.ForeignKeyConstraint(
            ["job_id", "rank"],
            ["detection.job_id", "detection.rank"],
            name=op.f("review_event_job_id_rank_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["job_id", "drawn"],
            ["review_event.job_id", "review_event.number"],
            name=op.f("review_event_job_id_drawn_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["job_id", "undoes"],
            ["review_event.job_id", "review_event.number"],
            name=op.f("review_event_job_id_undoes_fkey"),
        ),
    )
    op.create_index("review_event_of_image", "review_event", ["image_id", "created_at"])
    op.create_index("review_event_of_project", "review_event", ["project_id", "job_id"])


def downgrade() -> None:
    """Take it away."""
    op.drop_table("review_event")
