"""Studies, their images, and renditions."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.ids import new_id
from shared.tables.rows import APPENDED, NOW, Owned, Row

#: The condition that the patient of an image has not been read from its header yet.
PATIENT_UNREAD = "patient IS NULL AND media_type = 'application/dicom'"
_FLAGGED = "flags <> '{}'::text[]"


class Study(Owned, Row):
    """The images with one StudyInstanceUID. A PNG or JPEG is its own study."""

    __tablename__ = "study"
    __table_args__ = (
        sa.UniqueConstraint("project_id", "study_instance_uid"),
        Index("study_of_project", "project_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    study_instance_uid: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Image(Owned, Row):
    """One radiograph: its original and, after preparation, its rendition. Unique by project and digest."""

    __tablename__ = "image"
    __table_args__ = (
        sa.UniqueConstraint("project_id", "sha256"),
        # Few images have a flag. The index includes the flags, so that a search for a rare one reads no rows.
        Index("image_flagged", "project_id", "study_id", postgresql_include=["flags"], postgresql_where=text(_FLAGGED)),
        Index("image_of_patient", "project_id", "patient", postgresql_where=text("patient <> ''")),
        Index("image_without_patient", "project_id", "id", postgresql_where=text(PATIENT_UNREAD)),
        Index("image_rendition", "rendition_sha256", postgresql_using="hash"),
        APPENDED,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    study_id: Mapped[UUID] = mapped_column(ForeignKey("study.id"), index=True)
    sop_instance_uid: Mapped[str | None]
    series_instance_uid: Mapped[str | None]
    sop_class_uid: Mapped[str | None]
    transfer_syntax_uid: Mapped[str | None]
    modality: Mapped[str | None]
    #: Whether the header says that the pixels contain text, such as a name; None if it does not say.
    burned_in_annotation: Mapped[bool | None]
    #: Hex digest of the original's bytes, which determines its object key.
    sha256: Mapped[str]
    byte_count: Mapped[int] = mapped_column(sa.BigInteger)
    media_type: Mapped[str]
    #: The size of the original: from its header at intake, later from decoding.
    height_px: Mapped[int]
    width_px: Mapped[int]
    rendition_sha256: Mapped[str | None]
    rendition_version: Mapped[int | None]
    rendition_height_px: Mapped[int | None]
    rendition_width_px: Mapped[int | None]
    rendition_byte_count: Mapped[int | None]
    #: When the original was deleted because its retention time had passed.
    original_deleted_at: Mapped[datetime | None]
    #: The pseudonym of the patient, for erasing: see `shared.erasure.patients`. Empty if the file names no patient;
    #: None if the header has not been read for it.
    patient: Mapped[str | None]
    #: Properties found during decoding: see `shared.imaging.facts`. None until the image is prepared.
    row_spacing_mm: Mapped[float | None]
    column_spacing_mm: Mapped[float | None]
    spacing_source: Mapped[str | None]
    grey_levels: Mapped[list[str] | None]
    flags: Mapped[list[str] | None]
    chest_scores: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


def is_flagged(image: type[Image] = Image) -> sa.ColumnElement[bool]:
    """The condition of the index `image_flagged`: a query that repeats it can use the index."""
    return image.flags != sa.text("'{}'::text[]")


class Rendition(Row):
    """The rendition of an original of a dataset, so that no import creates it twice."""

    __tablename__ = "rendition"

    #: Digest of the original's bytes.
    sha256: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    #: The requested length of the longest side.
    rendition_px: Mapped[int] = mapped_column(primary_key=True)
    rendition_sha256: Mapped[str]
    rendition_height_px: Mapped[int]
    rendition_width_px: Mapped[int]
    height_px: Mapped[int]
    width_px: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
