"""Counts what a project has stored: images, and the bytes of originals and renditions."""

from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.tables import Image, Project


class Stored(NamedTuple):
    """What a project has stored. Bytes that several projects have count for each of them."""

    images: int = 0
    original_bytes: int = 0
    #: Without renditions that were made before their size was recorded.
    rendition_bytes: int = 0


def count_stored(session: Session, project_id: UUID | None = None) -> dict[UUID, Stored]:
    """Count one project or all; reads all images, a second for a million."""
    is_kept = Image.original_deleted_at.is_(None)
    sums = (
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(Image.byte_count).filter(is_kept), 0),
        sa.func.coalesce(sa.func.sum(Image.rendition_byte_count), 0),
    )
    counted = sa.select(Image.project_id, *sums).group_by(Image.project_id)
    if project_id is not None:
        counted = counted.where(Image.project_id == project_id)
    return {row[0]: Stored(*(int(number or 0) for number in row[1:])) for row in session.execute(counted)}


def keep_counts(session: Session) -> int:
    """Count all projects, and keep the counts for `/metrics` in their rows; return the number of projects."""
    counted = count_stored(session)
    projects = session.scalars(sa.select(Project).order_by(Project.id).with_for_update(key_share=True)).all()
    for project in projects:
        project.stored = counted.get(project.id, Stored())._asdict()
    return len(projects)
