"""Let projects keep data for a limited time, and erase all studies of a patient."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.indexes import create_index

revision = "0023"
down_revision = "0019"
branch_labels = None
depends_on = None

_UNREAD = "patient IS NULL AND media_type = 'application/dicom'"
#: Hash indexes are small. Without them the deletion of a row reads the whole table that refers to it.
_HASHED = {
    "image_rendition": ("image", "rendition_sha256"),
    "submission_file_image": ("submission_file", "image_id"),
    "submission_file_job": ("submission_file", "job_id"),
    "top_score_job": ("top_score", "job_id"),
}
_COLUMNS = {
    "project": ("retention JSONB NOT NULL DEFAULT '{}'", "stored JSONB NOT NULL DEFAULT '{}'"),
    "image": ("patient TEXT", "rendition_byte_count INTEGER", "original_deleted_at TIMESTAMP WITH TIME ZONE"),
}


def upgrade() -> None:
    """Add the columns, then the indexes; both can be repeated."""
    for table, columns in _COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column}")
    create_index("image_of_patient", "image", ["project_id", "patient"], postgresql_where=sa.text("patient <> ''"))
    create_index("image_without_patient", "image", ["project_id", "id"], postgresql_where=sa.text(_UNREAD))
    for name, (table, column) in _HASHED.items():
        create_index(name, table, [column], postgresql_using="hash")


def downgrade() -> None:
    """Drop the indexes and the columns."""
    for name, (table, _) in _HASHED.items():
        op.drop_index(name, table)
    op.drop_index("image_without_patient", "image")
    op.drop_index("image_of_patient", "image")
    for table, columns in _COLUMNS.items():
        for column in columns:
            op.drop_column(table, column.partition(" ")[0])
