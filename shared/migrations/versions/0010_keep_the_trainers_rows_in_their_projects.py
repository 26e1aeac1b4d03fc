"""Keep the trainer's rows in their projects: each has one, and names are unique within it."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.projects import OWNED, fill_in_projects

revision = "0010"
down_revision = "0010b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Fill in what was added meanwhile, and have names be those of a project."""
    fill_in_projects()
    op.drop_constraint(op.f("schedule_name_key"), "schedule", type_="unique")
    op.drop_index("dataset_named", "dataset")
    op.execute(sa.text("ALTER INDEX dataset_of_name RENAME TO dataset_named"))
    # Last, for it keeps everybody from the tables until the commit.
    for table in OWNED:
        op.alter_column(table, "project_id", nullable=False)


def downgrade() -> None:
    """Have names be unique in the whole installation; where two projects have a schedule of one name, the newer goes."""
    for table in OWNED:
        op.alter_column(table, "project_id", nullable=True)
    op.execute(sa.text("ALTER INDEX dataset_named RENAME TO dataset_of_name"))
    op.create_index("dataset_named", "dataset", ["name", "id"])
    op.execute(
        "DELETE FROM schedule AS newer USING schedule AS older WHERE newer.name = older.name AND newer.id > older.id"
    )
    op.create_unique_constraint(op.f("schedule_name_key"), "schedule", ["name"])
