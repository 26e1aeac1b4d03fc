"""Let the trainer's rows name their project, and keys have the scope `system`."""

import sqlalchemy as sa
from alembic import op

revision = "0010a"
down_revision = "0012a"
branch_labels = None
depends_on = None

_TABLES = ("dataset", "training_run", "evaluation", "gate_decision", "schedule")
_SCOPES = "scopes <@ ARRAY[{}]"


def upgrade() -> None:
    """Add the columns, empty for now."""
    for table in _TABLES:
        op.add_column(table, sa.Column("project_id", sa.Uuid(), nullable=True))
    _limit_scopes("'submit', 'read', 'train', 'admin', 'system'")


def downgrade() -> None:
    """Take them away, and the scope from the keys that have it."""
    op.execute("UPDATE api_key SET scopes = array_remove(scopes, 'system') WHERE 'system' = ANY(scopes)")
    _limit_scopes("'submit', 'read', 'train', 'admin'")
    for table in _TABLES:
        op.drop_column(table, "project_id")


def _limit_scopes(scopes: str) -> None:
    op.drop_constraint(op.f("api_key_scopes_check"), "api_key", type_="check")
    op.create_check_constraint(op.f("api_key_scopes_check"), "api_key", _SCOPES.format(scopes))
