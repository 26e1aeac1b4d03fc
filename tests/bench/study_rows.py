"""Fills the tables with studies as a busy place has them: by the million, and unevenly spread in time."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database import Database
from shared.tables import Model
from shared.vocabulary.flags import Flag

#: The classes of VinBigData but one, of which the first is found most often; and that one, found long ago on a few.
CLASSES = [
    *("Aortic enlargement", "Cardiomegaly", "Pleural thickening", "Pulmonary fibrosis", "Nodule/Mass", "Lung Opacity"),
    *("Pleural effusion", "Other lesion", "Infiltration", "ILD", "Calcification", "Consolidation", "Atelectasis"),
]
RARE = "Pneumothorax"

#: One every 30 s, each with one image and a job; `uuidv7(interval)` is PostgreSQL's own. Of a hundred the newest five
#: wait, and below a backlog that is prepared already; what was rejected for being rotated came in the first hundredth.
_ADD = sa.text("""
    WITH new AS MATERIALIZED (
        SELECT
            n, uuidv7(pause) AS study_id, uuidv7(pause) AS image_id, uuidv7(pause) AS job_id,
            now() + pause AS created_at,
            CASE WHEN n > :count * 0.95 THEN 'queued' WHEN n > :count * 0.92 THEN 'ready'
                WHEN n <= :count * 0.01 AND n % 10 = 0 THEN 'failed' WHEN random() < 0.03 THEN 'rejected'
                ELSE 'succeeded' END AS state,
            CASE WHEN random() < 0.001 THEN 9 WHEN n % 3 = 0 THEN 3 ELSE 5 END AS priority,
            CASE WHEN n <= :count * 0.01 AND n % 7 = 0 THEN ARRAY['rotated'] WHEN random() < 0.05
                THEN ARRAY[(CAST(:flags AS text[]))[1 + floor(random() * cardinality(CAST(:flags AS text[])))]]
                ELSE '{}' END AS flags
        FROM generate_series(1, :count) AS n, make_interval(secs => 30.0 * (n - :count)) AS pause
    ), studies AS (
        INSERT INTO study (id, project_id, study_instance_uid, created_at)
        SELECT study_id, :project_id, '1.2.826.0.1.' || n, created_at FROM new
    ), images AS (
        INSERT INTO image (
            id, project_id, study_id, sha256, byte_count, media_type, height_px, width_px, flags, created_at
        )
        SELECT image_id, :project_id, study_id, encode(sha256(image_id::text::bytea), 'hex'), 1, 'application/dicom',
            2048, 1720, flags, created_at FROM new
    ), jobs AS (
        INSERT INTO job (
            id, project_id, image_id, study_id, submission_id, state, priority, attempt, alone, model_id, abnormality,
            code, reason, created_at, finished_at
        )
        SELECT job_id, :project_id, image_id, study_id, CASE WHEN n % 2 = 0 THEN :submission_id END, state, priority, 0,
            false, CASE WHEN state = 'succeeded' THEN :model_id END,
            CASE WHEN state = 'succeeded' AND n % 50 > 0 THEN round(random()::numeric ^ 3, 4)::real END,
            CASE WHEN state IN ('rejected', 'failed') THEN 'undecodable_pixel_data' END,
            CASE WHEN state IN ('rejected', 'failed') THEN 'The pixel data cannot be decoded.' END,
            created_at, CASE WHEN state NOT IN ('queued', 'ready') THEN created_at END
        FROM new
    )
    INSERT INTO detection (
        job_id, rank, model_id, class_id, class_name, score, x_min_px, y_min_px, x_max_px, y_max_px
    )
    SELECT job_id, rank, :model_id, rank, CASE WHEN n <= 2000 AND n % 100 = 0 AND rank = 0 THEN :rare
        ELSE (CAST(:classes AS text[]))[1 + floor(random() ^ 2 * cardinality(CAST(:classes AS text[])))] END,
        0.99 - 0.2 * rank + 0.19 * random() - 0.19, 10, 10, 200, 300
    FROM new, generate_series(0, 4) AS rank WHERE state = 'succeeded'
""")
_ADD_SCORES = sa.text("""
    INSERT INTO top_score (job_id, class_name, project_id, study_id, image_id, score, tenth)
    SELECT job.id, class_name, project_id, study_id, image_id, max(score), floor(max(score) * 10)
    FROM job JOIN detection ON detection.job_id = job.id GROUP BY job.id, class_name
""")


def add_studies(database: Database, count: int, *, project_id: UUID, submission_id: UUID) -> None:
    """Add studies to a project, half of them of a submission. Foreign keys go unchecked.

    Ends with what autovacuum would do within its next minute.
    """
    with database.begin() as session:
        session.execute(sa.text("SET LOCAL session_replication_role = replica"))
        session.execute(sa.text("SELECT setseed(0.5)"))
        parameters = {"count": count, "project_id": project_id, "submission_id": submission_id}
        parameters |= {"model_id": _model_id(session), "classes": CLASSES, "rare": RARE}
        session.execute(_ADD, parameters | {"flags": [str(flag) for flag in Flag if flag is not Flag.ROTATED]})
        session.execute(_ADD_SCORES)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM (ANALYZE) study, image, job, detection, top_score"))


def _model_id(session: Session) -> UUID:
    return session.scalars(sa.select(Model.id)).one()
