"""Let studies be searched and sorted by the probability of any finding."""

import sqlalchemy as sa
from alembic import op

from shared.migrations.indexes import create_index

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the indexes; they have rows only for results of models with an abnormality head."""
    where = sa.text("abnormality IS NOT NULL")
    columns = ["project_id", "model_id", "abnormality", "study_id"]
    create_index("job_by_abnormality", "job", columns, postgresql_where=where)
    tenth: list[str | sa.TextClause] = [sa.text("(floor(abnormality * 10))")]
    by_tenth = ["project_id", "model_id", *tenth, "study_id", "abnormality"]
    create_index("job_by_abnormality_tenth", "job", by_tenth, postgresql_where=where)


def downgrade() -> None:
    """Remove them."""
    op.drop_index("job_by_abnormality_tenth", "job")
    op.drop_index("job_by_abnormality", "job")
