"""Add the trainer's tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables of datasets, trainings, evaluations, schedules and decisions."""
    op.create_table(
        "dataset",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("rendition_version", sa.Integer(), nullable=True),
        sa.Column("image_count", sa.Integer(), nullable=True),
        sa.Column("box_count", sa.Integer(), nullable=True),
        sa.Column("failure_count", sa.Integer(), nullable=True),
        sa.Column("summary", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("failures_sha256", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("log_tail", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("dataset_lease_check"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'interrupted', 'succeeded', 'failed', 'cancelled')",
            name=op.f("dataset_state_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("dataset_pkey")),
    )
    op.create_index("dataset_named", "dataset", ["name", "id"], unique=False)
    op.create_index(
        "dataset_waiting",
        "dataset",
        ["id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'interrupted')"),
    )
    op.create_table(
        "rendition",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rendition_px", sa.Integer(), nullable=False),
        sa.Column("rendition_sha256", sa.Text(), nullable=False),
        sa.Column("rendition_height_px", sa.Integer(), nullable=False),
        sa.Column("rendition_width_px", sa.Integer(), nullable=False),
        sa.Column("height_px", sa.Integer(), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "version", "rendition_px", name=op.f("rendition_pkey")),
    )
    op.create_table(
        "schedule",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("dataset_name", sa.Text(), nullable=False),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("gate", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("overlap", sa.Text(), nullable=False),
        sa.Column("skip_unchanged", sa.Boolean(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_outcome", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("overlap IN ('skip', 'queue')", name=op.f("schedule_overlap_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("schedule_pkey")),
        sa.UniqueConstraint("name", name=op.f("schedule_name_key")),
    )
    op.create_index("schedule_due", "schedule", ["next_at"], unique=False, postgresql_where=sa.text("enabled"))
    op.create_table(
        "evaluation",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("detections_sha256", sa.Text(), nullable=True),
        sa.Column("report_sha256", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("log_tail", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("evaluation_lease_check"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'interrupted', 'succeeded', 'failed', 'cancelled')",
            name=op.f("evaluation_state_check"),
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name=op.f("evaluation_dataset_id_fkey")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("evaluation_model_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("evaluation_pkey")),
    )
    op.create_index("evaluation_of", "evaluation", ["model_id", "dataset_id"], unique=False)
    op.create_index(
        "evaluation_waiting",
        "evaluation",
        ["id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'interrupted')"),
    )
    op.create_table(
        "training_run",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("config_digest", sa.Text(), nullable=False),
        sa.Column("gate", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("initial_model_id", sa.Uuid(), nullable=True),
        sa.Column("schedule_id", sa.Uuid(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("checkpoint_sha256", sa.Text(), nullable=True),
        sa.Column("checkpoint_steps", sa.Integer(), nullable=True),
        sa.Column("events", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("log_tail", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("training_run_lease_check"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'interrupted', 'succeeded', 'failed', 'cancelled')",
            name=op.f("training_run_state_check"),
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name=op.f("training_run_dataset_id_fkey")),
        sa.ForeignKeyConstraint(["initial_model_id"], ["model.id"], name=op.f("training_run_initial_model_id_fkey")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("training_run_model_id_fkey")),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedule.id"], name=op.f("training_run_schedule_id_fkey"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("training_run_pkey")),
        sa.UniqueConstraint("schedule_id", "due_at", name=op.f("training_run_schedule_id_due_at_key")),
    )
    op.create_index(
        "training_run_waiting",
        "training_run",
        ["id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'interrupted')"),
    )
    op.create_table(
        "gate_decision",
        sa.Column("candidate_model_id", sa.Uuid(), nullable=False),
        sa.Column("baseline_model_id", sa.Uuid(), nullable=True),
        sa.Column("training_run_id", sa.Uuid(), nullable=True),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("candidate_evaluation_id", sa.Uuid(), nullable=True),
        sa.Column("baseline_evaluation_id", sa.Uuid(), nullable=True),
        sa.Column("promoted", sa.Boolean(), nullable=True),
        sa.Column("figures", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("log_tail", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (lease_owner IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("gate_decision_lease_check"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'interrupted', 'succeeded', 'failed', 'cancelled')",
            name=op.f("gate_decision_state_check"),
        ),
        sa.ForeignKeyConstraint(
            ["baseline_evaluation_id"], ["evaluation.id"], name=op.f("gate_decision_baseline_evaluation_id_fkey")
        ),
        sa.ForeignKeyConstraint(["baseline_model_id"], ["model.id"], name=op.f("gate_decision_baseline_model_id_fkey")),
        sa.ForeignKeyConstraint(
            ["candidate_evaluation_id"], ["evaluation.id"], name=op.f("gate_decision_candidate_evaluation_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["candidate_model_id"], ["model.id"], name=op.f("gate_decision_candidate_model_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["training_run_id"], ["training_run.id"], name=op.f("gate_decision_training_run_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("gate_decision_pkey")),
    )
    op.create_index(
        "gate_decision_waiting",
        "gate_decision",
        ["id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'interrupted')"),
    )
    op.drop_constraint("worker_stage_check", "worker")
    op.create_check_constraint("stage", "worker", "stage IN ('prepare', 'detect', 'sweep', 'train')")
    op.drop_constraint("api_key_scopes_check", "api_key")
    op.create_check_constraint("scopes", "api_key", "scopes <@ ARRAY['submit', 'read', 'train', 'admin']")


def downgrade() -> None:
    """Drop them."""
    op.drop_index(
        "gate_decision_waiting",
        table_name="gate_decision",
        postgresql_where=sa.text("state IN ('queued', 'interrupted')"),
    )
    op.drop_table("gate_decision")
    op.drop_index(
        "training_run_waiting",
        table_name="training_run",
        postgresql_where=sa.text("state IN ('queued', 'interrupted')"),
    )
    op.drop_table("training_run")
    op.drop_index(
        "evaluation_waiting", table_name="evaluation", postgresql_where=sa.text("state IN ('queued', 'interrupted')")
    )
    op.drop_index("evaluation_of", table_name="evaluation")
    op.drop_table("evaluation")
    op.drop_index("schedule_due", table_name="schedule", postgresql_where=sa.text("enabled"))
    op.drop_table("schedule")
    op.drop_table("rendition")
    op.drop_index(
        "dataset_waiting", table_name="dataset", postgresql_where=sa.text("state IN ('queued', 'interrupted')")
    )
    op.drop_index("dataset_named", table_name="dataset")
    op.drop_table("dataset")
    op.execute("DELETE FROM worker WHERE stage = 'train'")
    op.execute("UPDATE api_key SET scopes = array_remove(scopes, 'train')")
    op.drop_constraint("api_key_scopes_check", "api_key")
    op.create_check_constraint("scopes", "api_key", "scopes <@ ARRAY['submit', 'read', 'admin']")
    op.drop_constraint("worker_stage_check", "worker")
    op.create_check_constraint("stage", "worker", "stage IN ('prepare', 'detect', 'sweep')")
