"""Create the tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "model",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("card", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("weights_sha256", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('candidate', 'active', 'retired')", name=op.f("model_state_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("model_pkey")),
        sa.UniqueConstraint("digest", name=op.f("model_digest_key")),
    )
    op.create_index("model_active", "model", ["state"], unique=True, postgresql_where=sa.text("state = 'active'"))
    op.create_table(
        "project",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("project_pkey")),
        sa.UniqueConstraint("name", name=op.f("project_name_key")),
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("scopes <@ ARRAY['submit', 'read', 'admin']", name=op.f("api_key_scopes_check")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("api_key_project_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("api_key_pkey")),
        sa.UniqueConstraint("prefix", name=op.f("api_key_prefix_key")),
    )
    op.create_index(op.f("api_key_project_id"), "api_key", ["project_id"], unique=False)
    op.create_table(
        "study",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("study_project_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("study_pkey")),
        sa.UniqueConstraint("project_id", "study_instance_uid", name=op.f("study_project_id_study_instance_uid_key")),
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("model_id", sa.Uuid(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("batches", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("step_s", sa.Double(), nullable=False),
        sa.Column("expired_leases", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("stage IN ('prepare', 'detect', 'sweep')", name=op.f("worker_stage_check")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("worker_model_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("worker_pkey")),
    )
    op.create_table(
        "image",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("study_id", sa.Uuid(), nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("byte_count", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("height_px", sa.Integer(), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=False),
        sa.Column("rendition_sha256", sa.Text(), nullable=True),
        sa.Column("rendition_version", sa.Integer(), nullable=True),
        sa.Column("rendition_height_px", sa.Integer(), nullable=True),
        sa.Column("rendition_width_px", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("image_project_id_fkey")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("image_study_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("image_pkey")),
        sa.UniqueConstraint("project_id", "sha256", name=op.f("image_project_id_sha256_key")),
    )
    op.create_index(op.f("image_study_id"), "image", ["study_id"], unique=False)
    op.create_table(
        "job",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("requested_model_id", sa.Uuid(), nullable=True),
        sa.Column("model_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("code_version", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('preparing', 'detecting')) = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("job_lease_check"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'preparing', 'ready', 'detecting', 'succeeded', 'rejected', 'failed', 'cancelled')",
            name=op.f("job_state_check"),
        ),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name=op.f("job_priority_check")),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("job_image_id_fkey")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("job_model_id_fkey")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("job_project_id_fkey")),
        sa.ForeignKeyConstraint(["requested_model_id"], ["model.id"], name=op.f("job_requested_model_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("job_pkey")),
        postgresql_with={"autovacuum_vacuum_scale_factor": "0.01", "fillfactor": "80"},
    )
    op.create_index(op.f("job_image_id"), "job", ["image_id"], unique=False)
    op.create_index(
        "job_leased",
        "job",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('preparing', 'detecting')"),
    )
    op.create_index(
        "job_result", "job", ["image_id", "model_id"], unique=True, postgresql_where=sa.text("state = 'succeeded'")
    )
    op.create_index(
        "job_waiting",
        "job",
        ["state", sa.literal_column("priority DESC"), "id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'ready')"),
    )
    op.create_table(
        "detection",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.Column("class_name", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("x_min_px", sa.Double(), nullable=False),
        sa.Column("y_min_px", sa.Double(), nullable=False),
        sa.Column("x_max_px", sa.Double(), nullable=False),
        sa.Column("y_max_px", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("detection_job_id_fkey")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("detection_model_id_fkey")),
        sa.PrimaryKeyConstraint("job_id", "rank", name=op.f("detection_pkey")),
    )


def downgrade() -> None:
    """Drop them; their indexes go along."""
    for table in ("detection", "job", "image", "worker", "study", "api_key", "project", "model"):
        op.drop_table(table)
