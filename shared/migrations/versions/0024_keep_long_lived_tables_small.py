"""Let a lease be renewed without touching an index, and vacuum large tables in small steps."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.indexes import create_index

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

#: The indexes of leased rows: table, key, and the states.
_LEASED = (
    ("job", ["id"], "state IN ('preparing', 'detecting')"),
    ("submission_file", ["submission_id", "number"], "state = 'checking'"),
    ("webhook_delivery", ["id"], "state = 'sending'"),
)
_APPENDED = {"autovacuum_analyze_scale_factor": "0.02", "autovacuum_vacuum_insert_scale_factor": "0.02"}
#: Only new pages and the next vacuum follow these settings, so no row is rewritten and nobody waits.
_SETTINGS = {
    "audit_event": _APPENDED,
    "detection": _APPENDED,
    "image": _APPENDED,
    "top_score": _APPENDED,
    "webhook_delivery": {"autovacuum_vacuum_scale_factor": "0.01", "fillfactor": "80"},
    "worker": {"fillfactor": "50"},
}


def upgrade() -> None:
    """Build the new indexes beside the old ones, drop those, and change the settings."""
    for table, key, where in _LEASED:
        create_index(f"{table}_held", table, key, postgresql_where=sa.text(where))
        op.drop_index(f"{table}_leased", table, if_exists=True)
    for table, settings in _SETTINGS.items():
        op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{name} = {value}' for name, value in settings.items())})")


def downgrade() -> None:
    """Do the reverse."""
    for table, settings in _SETTINGS.items():
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(settings)})")
    for table, _, where in _LEASED:
        create_index(f"{table}_leased", table, ["lease_expires_at"], postgresql_where=sa.text(where))
        op.drop_index(f"{table}_held", table, if_exists=True)
