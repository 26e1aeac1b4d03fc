"""Let trainings name their group, and let the machines of a group find each other."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the group of a training, and the table of the machines."""
    op.add_column("training_run", sa.Column("trainer_group", sa.Text(), nullable=True))
    op.add_column("training_run", sa.Column("rendezvous", sa.Text(), nullable=True))
    op.add_column(
        "training_run", sa.Column("machines", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False)
    )
    op.create_table(
        "trainer_machine",
        sa.Column("trainer_group", sa.Text(), nullable=False),
        sa.Column("node_rank", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("training_run_id", sa.Uuid(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("log_tail", sa.Text(), server_default="", nullable=False),
        sa.Column("ending", postgresql.JSONB(), nullable=True),
        sa.ForeignKeyConstraint(
            ["training_run_id"],
            ["training_run.id"],
            name=op.f("trainer_machine_training_run_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("trainer_group", "node_rank", name=op.f("trainer_machine_pkey")),
    )


def downgrade() -> None:
    """Take it away."""
    op.drop_table("trainer_machine")
    op.drop_column("training_run", "machines")
    op.drop_column("training_run", "rendezvous")
    op.drop_column("training_run", "trainer_group")
