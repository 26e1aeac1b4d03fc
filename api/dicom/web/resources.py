"""Studies, series and instances of DICOMweb: their paths, URLs and rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from sqlalchemy.orm import Session

from api.dicom.web.headers import Original, read_header
from api.http.address import absolute
from api.http.auth import identity
from api.http.resource import resource
from api.http.services import services
from shared.bounded import Bounded
from shared.errors import MalformedDicom, NotFound, ObjectMissing
from shared.imaging.header import DICOM, UID_PATTERN
from shared.tables import Image, Study

PREFIX = "/dicom-web"
STUDY = f"{PREFIX}/studies/<study_uid>"
SERIES = f"{STUDY}/series/<series_uid>"
INSTANCE = f"{SERIES}/instances/<instance_uid>"

_UID = f"^{UID_PATTERN}$"
#: Rows that DICOMweb can address: PNG and JPEG have no UIDs, and some files that resemble DICOM have none either.
ADDRESSABLE = sa.and_(
    Image.media_type == DICOM,
    Study.study_instance_uid.is_not(None),
    Image.series_instance_uid.is_not(None),
    Image.sop_instance_uid.is_not(None),
)


class _Blueprint(APIBlueprint):
    """Routes that also accept a trailing slash, which several clients send."""

    def add_url_rule(self, rule: str, *arguments: Any, **options: Any) -> None:
        super().add_url_rule(rule, *arguments, strict_slashes=False, **options)


def dicomweb(name: str) -> APIBlueprint:
    """Return a blueprint for DICOMweb."""
    return resource(name, tag="DICOMweb", kind=_Blueprint)


class Level(IntEnum):
    """The levels of DICOM's hierarchy."""

    STUDY, SERIES, INSTANCE = 1, 2, 3


class StudyUid(Bounded):
    """Identifies a study."""

    study_uid: str = Field(pattern=_UID, description="StudyInstanceUID.")


class SeriesUid(StudyUid):
    """Identifies a series."""

    series_uid: str = Field(pattern=_UID, description="SeriesInstanceUID.")


class InstanceUid(SeriesUid):
    """Identifies an instance."""

    instance_uid: str = Field(pattern=_UID, description="SOPInstanceUID.")


class FramesPath(InstanceUid):
    """Identifies a frame."""

    frames: str = Field(
        max_length=1000,
        pattern=r"^[0-9]{1,9}(,[0-9]{1,9})*$",
        description="Numbers from 1 with commas between; `1`, since each instance has one frame.",
    )


def check_frames(path: FramesPath) -> None:
    """Raise `NotFound` unless only frame 1 is requested, because each instance has one frame."""
    if {int(number) for number in path.frames.split(",")} != {1}:
        raise NotFound("The instance has one frame only, number 1.")


@dataclass(frozen=True)
class Instance:
    """One stored instance: its UIDs, and its original."""

    study_uid: str
    series_uid: str
    instance_uid: str
    sop_class_uid: str | None
    transfer_syntax_uid: str
    modality: str | None
    original: Original
    size_px: tuple[int, int]  # height, width
    rendition_sha256: str | None

    @property
    def url(self) -> str:
        """Return the URL to retrieve it."""
        return url_of(self.study_uid, self.series_uid, self.instance_uid)


def url_of(study_uid: str, series_uid: str | None = None, instance_uid: str | None = None) -> str:
    """Return the URL of a study, series or instance, as the client reaches this server."""
    levels = [("studies", study_uid), ("series", series_uid), ("instances", instance_uid)]
    return service_url() + "".join(f"/{level}/{quote(uid, safe='')}" for level, uid in levels if uid is not None)


def service_url() -> str:
    """Return the base of all DICOMweb URLs, as the client reaches this server."""
    return absolute(PREFIX)


def find(path: StudyUid) -> list[Instance]:
    """Return the instances below a path, in a stable order. Raises `NotFound` if there are none.

    If an instance was sent in several encodings, the one stored last is returned.
    """
    with services().database.begin() as session:
        complete(session, [path.study_uid])
        wanted = [Study.study_instance_uid == path.study_uid]
        if isinstance(path, SeriesUid):
            wanted.append(Image.series_instance_uid == path.series_uid)
        if isinstance(path, InstanceUid):
            wanted.append(Image.sop_instance_uid == path.instance_uid)
        found = [as_instance(image, uid) for image, uid in session.execute(latest(Level.INSTANCE, *wanted))]
    if not found:
        raise NotFound
    return found


def latest(level: Level, *conditions: sa.ColumnElement[bool]) -> Any:
    """Select the latest row of each study, series or instance of the key's project, with its StudyInstanceUID."""
    keys = (Image.study_id, Image.series_instance_uid, Image.sop_instance_uid)[:level]
    age = sa.func.row_number().over(partition_by=keys, order_by=Image.id.desc())
    ranked = sa.select(Image.id, age.label("age")).join(Study, Study.id == Image.study_id)
    ranked = ranked.where(Image.project_id == identity().project_id, ADDRESSABLE, *conditions)
    aged = ranked.subquery()
    return (
        sa.select(Image, Study.study_instance_uid)
        .join(Study, Study.id == Image.study_id)
        .join(aged, aged.c.id == Image.id)
        .where(aged.c.age == 1)
        .order_by(keys[0].desc(), *keys[1:])
    )


def as_instance(image: Image, study_uid: str) -> Instance:
    """Return the instance of a row of `latest`."""
    return Instance(
        study_uid=study_uid,
        series_uid=image.series_instance_uid or "",
        instance_uid=image.sop_instance_uid or "",
        sop_class_uid=image.sop_class_uid,
        transfer_syntax_uid=image.transfer_syntax_uid or "",
        modality=image.modality,
        original=Original(image.sha256, image.byte_count),
        size_px=(image.height_px, image.width_px),
        rendition_sha256=image.rendition_sha256,
    )


def complete(session: Session, study_uids: Sequence[str]) -> None:
    """Fill in the UIDs of rows that are older than these columns, from their headers."""
    bare = (
        sa.select(Image)
        .join(Study, Study.id == Image.study_id)
        .where(Image.project_id == identity().project_id, Study.project_id == identity().project_id)
        .where(Study.study_instance_uid.in_(study_uids))
        .where(Image.media_type == DICOM, Image.series_instance_uid.is_(None))
    )
    for image in session.scalars(bare):
        try:
            header = read_header(services().store, Original(image.sha256, image.byte_count), _UIDS)
        except (ObjectMissing, MalformedDicom):
            continue
        image.series_instance_uid = header.text("SeriesInstanceUID")
        image.sop_class_uid, image.modality = header.text("SOPClassUID"), header.text("Modality")
    session.flush()


_UIDS = ["SOPClassUID", "SeriesInstanceUID", "Modality"]
