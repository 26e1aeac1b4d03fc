"""Add samples of the queue and points of training curves."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from shared.migrations.indexes import create_index

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add samples of the queue and points of training curves."""
    create_index("job_finished", "job", ["finished_at"], postgresql_where=sa.text("finished_at IS NOT NULL"))
    create_index(
        "job_unfit", "job", ["project_id", "finished_at"], postgresql_where=sa.text("state IN ('rejected', 'failed')")
    )
    op.create_table(
        "queue_sample",
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued", sa.BigInteger(), nullable=False),
        sa.Column("preparing", sa.BigInteger(), nullable=False),
        sa.Column("ready", sa.BigInteger(), nullable=False),
        sa.Column("detecting", sa.BigInteger(), nullable=False),
        sa.Column("oldest_waiting_s", sa.Float(), nullable=False),
        sa.Column("succeeded", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.BigInteger(), nullable=False),
        sa.Column("elapsed_s", sa.Float(), nullable=False),
        sa.Column("batches", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("step_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("at", name=op.f("queue_sample_pkey")),
    )
    op.create_table(
        "training_point",
        sa.Column("training_run_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Float(), nullable=False),
        sa.Column("values", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["training_run_id"],
            ["training_run.id"],
            name=op.f("training_point_training_run_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("training_run_id", "step", name=op.f("training_point_pkey")),
    )


def downgrade() -> None:
    """Take it away."""
    op.drop_index("job_unfit", table_name="job")
    op.drop_index("job_finished", table_name="job")
    op.drop_table("training_point")
    op.drop_table("queue_sample")
