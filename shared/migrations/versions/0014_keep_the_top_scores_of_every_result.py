"""Keep the top scores of every result, for any model can become the active one."""

from shared.migrations.indexes import fill

revision = "0014"
down_revision = "0011"
branch_labels = None
depends_on = None

#: Of results whose scores went when a later job of their image succeeded, some at a time. Rows that others hold are left
#: to the next round.
_SOME = """
    INSERT INTO top_score (study_id, class_name, job_id, project_id, image_id, score, tenth)
    SELECT older.study_id, detection.class_name, older.id, older.project_id, older.image_id,
        max(detection.score), floor(max(detection.score) * 10)
    FROM (
        SELECT job.id, job.study_id, job.project_id, job.image_id FROM job
        WHERE job.state = 'succeeded'
            AND EXISTS (
                SELECT FROM job AS later
                WHERE later.image_id = job.image_id AND later.id > job.id AND later.state = 'succeeded'
            )
            AND EXISTS (SELECT FROM detection WHERE detection.job_id = job.id)
            AND NOT EXISTS (
                SELECT FROM top_score WHERE top_score.study_id = job.study_id AND top_score.job_id = job.id
            )
        LIMIT 5000 FOR KEY SHARE SKIP LOCKED
    ) AS older JOIN detection ON detection.job_id = older.id
    GROUP BY older.study_id, detection.class_name, older.id, older.project_id, older.image_id
    ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    """Add the scores; doing it again does nothing."""
    fill(_SOME)


def downgrade() -> None:
    """Do nothing: scores of other results than the latest were always allowed."""
