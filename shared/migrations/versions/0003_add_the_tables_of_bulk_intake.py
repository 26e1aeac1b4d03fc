"""Add the tables of bulk intake."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables of bulk intake."""
    op.create_table(
        "audit_event",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("remote_address", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_key.id"], name=op.f("audit_event_api_key_id_fkey")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("audit_event_project_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_event_pkey")),
    )
    op.create_index("audit_event_of_project", "audit_event", ["project_id", "id"], unique=False)
    op.create_table(
        "idempotency_key",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_key.id"], name=op.f("idempotency_key_api_key_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("idempotency_key_pkey")),
        sa.UniqueConstraint("api_key_id", "key", name=op.f("idempotency_key_api_key_id_key_key")),
    )
    op.create_index("idempotency_key_age", "idempotency_key", ["created_at"], unique=False)
    op.create_table(
        "submission",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("requested_model_id", sa.Uuid(), nullable=True),
        sa.Column("file_count", sa.BigInteger(), nullable=False),
        sa.Column("source_bucket", sa.Text(), nullable=True),
        sa.Column("source_prefix", sa.Text(), nullable=True),
        sa.Column("listed_to", sa.Text(), nullable=True),
        sa.Column("tally", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("tallied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('open', 'processing', 'completed', 'completed_with_errors', 'cancelled')",
            name=op.f("submission_state_check"),
        ),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name=op.f("submission_priority_check")),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_key.id"], name=op.f("submission_api_key_id_fkey")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("submission_project_id_fkey")),
        sa.ForeignKeyConstraint(["requested_model_id"], ["model.id"], name=op.f("submission_requested_model_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("submission_pkey")),
    )
    op.create_index("submission_of_project", "submission", ["project_id", "id"], unique=False)
    op.create_index(
        "submission_unfinished",
        "submission",
        ["id"],
        unique=False,
        postgresql_where=sa.text("state IN ('open', 'processing')"),
    )
    op.create_table(
        "webhook",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_key.id"], name=op.f("webhook_api_key_id_fkey")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("webhook_project_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_pkey")),
    )
    op.create_index(op.f("webhook_project_id"), "webhook", ["project_id"], unique=False)
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'sending') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("webhook_delivery_lease_check"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'sending', 'delivered', 'dead')", name=op.f("webhook_delivery_state_check")
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhook.id"], name=op.f("webhook_delivery_webhook_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_delivery_pkey")),
    )
    op.create_index(
        "webhook_delivery_dead",
        "webhook_delivery",
        ["webhook_id", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.create_index(
        "webhook_delivery_leased",
        "webhook_delivery",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'sending'"),
    )
    op.create_index("webhook_delivery_of", "webhook_delivery", ["webhook_id", "id"], unique=False)
    op.create_index(
        "webhook_delivery_waiting",
        "webhook_delivery",
        ["webhook_id", "available_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "submission_file",
        sa.Column("submission_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("byte_count", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("archive_number", sa.BigInteger(), nullable=True),
        sa.Column("entry_number", sa.Integer(), nullable=True),
        sa.Column("source_key", sa.Text(), nullable=True),
        sa.Column("upload_id", sa.Text(), nullable=True),
        sa.Column("image_id", sa.Uuid(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'checking') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("submission_file_lease_check"),
        ),
        sa.CheckConstraint(
            "state IN ('expected', 'arrived', 'checking', 'accepted', 'duplicate', 'unpacked', 'rejected', 'failed', 'cancelled')",
            name=op.f("submission_file_state_check"),
        ),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("submission_file_image_id_fkey")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("submission_file_job_id_fkey")),
        sa.ForeignKeyConstraint(["submission_id"], ["submission.id"], name=op.f("submission_file_submission_id_fkey")),
        sa.PrimaryKeyConstraint("submission_id", "number", name=op.f("submission_file_pkey")),
        postgresql_with={"autovacuum_vacuum_scale_factor": "0.01", "fillfactor": "80"},
    )
    op.create_index(
        "submission_file_entry",
        "submission_file",
        ["submission_id", "archive_number", "entry_number"],
        unique=True,
        postgresql_where=sa.text("archive_number IS NOT NULL"),
    )
    op.create_index(
        "submission_file_leased",
        "submission_file",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'checking'"),
    )
    op.create_index(
        "submission_file_open",
        "submission_file",
        ["submission_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('expected', 'arrived', 'checking')"),
    )
    op.create_index(
        "submission_file_waiting",
        "submission_file",
        [sa.literal_column("priority DESC"), "submission_id", "number"],
        unique=False,
        postgresql_where=sa.text("state = 'arrived'"),
    )
    op.add_column("api_key", sa.Column("rate_limit", sa.Text(), nullable=True))
    op.add_column("api_key", sa.Column("files_per_day", sa.BigInteger(), nullable=True))
    op.add_column("api_key", sa.Column("bytes_per_day", sa.BigInteger(), nullable=True))
    op.add_column("api_key", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("image", sa.Column("series_instance_uid", sa.Text(), nullable=True))
    op.add_column("image", sa.Column("sop_class_uid", sa.Text(), nullable=True))
    op.add_column("image", sa.Column("transfer_syntax_uid", sa.Text(), nullable=True))
    op.add_column("image", sa.Column("modality", sa.Text(), nullable=True))
    op.add_column("image", sa.Column("burned_in_annotation", sa.Boolean(), nullable=True))
    op.add_column("job", sa.Column("submission_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f("job_submission_id_fkey"), "job", "submission", ["submission_id"], ["id"])
    # Each project that exists gets a key of its own; later ones bring theirs along.
    random = "decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')"
    op.add_column(
        "project", sa.Column("pseudonym_key", sa.LargeBinary(), nullable=False, server_default=sa.text(random))
    )
    op.alter_column("project", "pseudonym_key", server_default=None)
    _allow_stages("prepare", "detect", "sweep", "train", "intake", "notify")


def downgrade() -> None:
    """Take that back."""
    op.execute("DELETE FROM worker WHERE stage IN ('intake', 'notify')")
    _allow_stages("prepare", "detect", "sweep", "train")
    op.drop_column("project", "pseudonym_key")
    op.drop_constraint(op.f("job_submission_id_fkey"), "job", type_="foreignkey")
    op.drop_column("job", "submission_id")
    op.drop_column("image", "burned_in_annotation")
    op.drop_column("image", "modality")
    op.drop_column("image", "transfer_syntax_uid")
    op.drop_column("image", "sop_class_uid")
    op.drop_column("image", "series_instance_uid")
    op.drop_column("api_key", "expires_at")
    op.drop_column("api_key", "bytes_per_day")
    op.drop_column("api_key", "files_per_day")
    op.drop_column("api_key", "rate_limit")
    op.drop_index(
        "submission_file_waiting", table_name="submission_file", postgresql_where=sa.text("state = 'arrived'")
    )
    op.drop_index(
        "submission_file_open",
        table_name="submission_file",
        postgresql_where=sa.text("state IN ('expected', 'arrived', 'checking')"),
    )
    op.drop_index(
        "submission_file_leased", table_name="submission_file", postgresql_where=sa.text("state = 'checking'")
    )
    op.drop_index(
        "submission_file_entry", table_name="submission_file", postgresql_where=sa.text("archive_number IS NOT NULL")
    )
    op.drop_table("submission_file")
    op.drop_index(
        "webhook_delivery_waiting", table_name="webhook_delivery", postgresql_where=sa.text("state = 'pending'")
    )
    op.drop_index("webhook_delivery_of", table_name="webhook_delivery")
    op.drop_index("webhook_delivery_dead", table_name="webhook_delivery", postgresql_where=sa.text("state = 'dead'"))
    op.drop_index(
        "webhook_delivery_leased", table_name="webhook_delivery", postgresql_where=sa.text("state = 'sending'")
    )
    op.drop_table("webhook_delivery")
    op.drop_index(op.f("webhook_project_id"), table_name="webhook")
    op.drop_table("webhook")
    op.drop_index(
        "submission_unfinished", table_name="submission", postgresql_where=sa.text("state IN ('open', 'processing')")
    )
    op.drop_index("submission_of_project", table_name="submission")
    op.drop_table("submission")
    op.drop_index("idempotency_key_age", table_name="idempotency_key")
    op.drop_table("idempotency_key")
    op.drop_index("audit_event_of_project", table_name="audit_event")
    op.drop_table("audit_event")


def _allow_stages(*stages: str) -> None:
    op.drop_constraint(op.f("worker_stage_check"), "worker", type_="check")
    op.create_check_constraint(op.f("worker_stage_check"), "worker", sa.column("stage").in_(stages))
