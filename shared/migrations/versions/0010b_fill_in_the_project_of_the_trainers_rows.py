"""Fill in the project of the trainer's rows."""

from alembic import op

from shared.migrations.indexes import create_foreign_key, create_index
from shared.migrations.projects import OWNED, fill_in_projects

revision = "0010b"
down_revision = "0010a"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Fill in the columns, some rows at a time, and add the indexes that hold them."""
    fill_in_projects()
    for table in OWNED:
        create_foreign_key(op.f(f"{table}_project_id_fkey"), table, "project", "project_id")
        if table != "schedule":
            create_index(f"{table}_of_project", table, ["project_id", "id"])
    create_index("dataset_of_name", "dataset", ["project_id", "name", "id"])
    create_index("schedule_named", "schedule", ["project_id", "name"], unique=True)


def downgrade() -> None:
    """Take them away; rows keep what is filled in."""
    op.drop_index("schedule_named", "schedule")
    op.drop_index("dataset_of_name", "dataset")
    for table in OWNED:
        if table != "schedule":
            op.drop_index(f"{table}_of_project", table)
        op.drop_constraint(op.f(f"{table}_project_id_fkey"), table, type_="foreignkey")
