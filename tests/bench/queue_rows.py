"""Fills the tables with jobs, by the million where a bench wants that."""

import hashlib
from collections.abc import Sequence

import sqlalchemy as sa

from shared.database import Database
from shared.detector.demo import load_demo_model
from shared.ids import new_id
from shared.imaging.rendition import make_rendition
from shared.models import registry
from shared.object_store import ObjectStore, rendition_key
from shared.phantoms import encode_dicom, make_phantom
from shared.settings import Settings
from shared.tables import Project, Study
from shared.version import RENDITION_VERSION

#: An image's size, (height, width), in original pixels and in those of its rendition.
ORIGINAL_PX = (2048, 1720)
RENDITION_PX = (1024, 860)

#: Images and their jobs in one statement each; `uuidv7()` is PostgreSQL's own, and grows from row to row.
_ADD = sa.text("""
    WITH new AS MATERIALIZED (
        SELECT n, uuidv7() AS image_id, uuidv7() AS job_id FROM generate_series(1, :count) AS n
    ), images AS (
        INSERT INTO image (
            id, project_id, study_id, sha256, byte_count, media_type, height_px, width_px,
            rendition_sha256, rendition_version, rendition_height_px, rendition_width_px
        )
        SELECT image_id, :project_id, :study_id, encode(sha256(image_id::text::bytea), 'hex'), 1, 'application/dicom',
            :height_px, :width_px, (CAST(:renditions AS text[]))[1 + n % cardinality(CAST(:renditions AS text[]))],
            :rendition_version, :rendition_height_px, :rendition_width_px
        FROM new
    )
    INSERT INTO job (
        id, project_id, image_id, study_id, state, priority, attempt, alone, model_id, ready_at, finished_at
    )
    SELECT job_id, :project_id, image_id, :study_id, :state, 5, 0, false, model_id, now(),
        CASE WHEN model_id IS NULL THEN NULL ELSE now() END
    FROM new, (SELECT (SELECT id FROM model WHERE state = 'active' AND :state = 'succeeded') AS model_id) AS model
""")


def add_demo_model(settings: Settings, database: Database) -> None:
    """Register the shipped model and make it the active one."""
    with database.begin() as session:
        registry.promote(session, registry.register(session, ObjectStore(settings), *load_demo_model()).id)


def store_renditions(settings: Settings, count: int) -> list[str]:
    """Draw images, put their renditions into the object store, and return the digests."""
    store, digests = ObjectStore(settings), []
    for seed in range(count):
        image = encode_dicom(make_phantom(seed, *RENDITION_PX))
        png = make_rendition(image, rendition_px=max(RENDITION_PX), max_image_pixels=settings.max_image_pixels).png
        digests.append(hashlib.sha256(png).hexdigest())
        store.put(rendition_key(digests[-1]), png)
    return digests


def add_jobs(database: Database, count: int, *, state: str = "ready", renditions: Sequence[str] = ("0" * 64,)) -> None:
    """Add jobs in a state, each of an image of its own; their renditions are these in turn. Foreign keys go unchecked.

    Ends with what autovacuum would do within its next minute, so that a bench does not meet it by chance.
    """
    with database.begin() as session:
        session.execute(sa.text("SET LOCAL session_replication_role = replica"))
        project = Project(name=f"bench {new_id()}")
        session.add(project)
        session.flush()
        study = Study(project_id=project.id)
        session.add(study)
        session.flush()
        session.execute(
            _ADD,
            {
                "count": count,
                "state": state,
                "project_id": project.id,
                "study_id": study.id,
                "height_px": ORIGINAL_PX[0],
                "width_px": ORIGINAL_PX[1],
                "renditions": list(renditions),
                "rendition_version": RENDITION_VERSION,
                "rendition_height_px": RENDITION_PX[0],
                "rendition_width_px": RENDITION_PX[1],
            },
        )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM (ANALYZE) job, image"))
