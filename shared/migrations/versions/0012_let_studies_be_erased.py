"""Let studies be erased, and count what keys send."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0009"
branch_labels = None
depends_on = None

_BEFORE = "'expected', 'arrived', 'checking', 'accepted', 'duplicate', 'unpacked', 'rejected', 'failed', 'cancelled'"


def upgrade() -> None:
    """Add what is left to be erased, and how much each key has sent on a day."""
    op.create_table(
        "erasure",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("study_id", sa.Uuid(), nullable=True),
        sa.Column("sha256s", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("keys", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("dataset_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("erasure_project_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("erasure_pkey")),
    )
    op.create_table(
        "erased_object",
        sa.Column("key_sha256", sa.Text(), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key_sha256", name=op.f("erased_object_pkey")),
    )
    op.create_table(
        "usage",
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_key.id"], name=op.f("usage_api_key_id_fkey")),
        sa.PrimaryKeyConstraint("api_key_id", "day", name=op.f("usage_pkey")),
        postgresql_with={"fillfactor": "50"},
    )
    op.add_column("dataset", sa.Column("erased_count", sa.Integer(), server_default="0", nullable=False))
    _name_states(f"{_BEFORE}, 'erased'")


def downgrade() -> None:
    """Take it away; rows of erased files count as cancelled then."""
    op.execute("UPDATE submission_file SET state = 'cancelled' WHERE state = 'erased'")
    _name_states(_BEFORE)
    op.drop_column("dataset", "erased_count")
    op.drop_table("usage")
    op.drop_table("erased_object")
    op.drop_table("erasure")


def _name_states(states: str) -> None:
    name = op.f("submission_file_state_check")
    op.drop_constraint(name, "submission_file", type_="check")
    # Rows are as they were, and every new one is checked: no scan of the table under a lock.
    op.execute(f"ALTER TABLE submission_file ADD CONSTRAINT {name} CHECK (state IN ({states})) NOT VALID")
