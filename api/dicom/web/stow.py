"""STOW-RS: store instances, PS3.18 section 10.5; each instance has its own result."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import structlog
from flask import Response, request
from flask_openapi3.types import ResponseDict
from sqlalchemy.orm import Session

from api.dicom.web.dicom_json import OFFERED, DataSet, attribute, described, to_text
from api.dicom.web.media_types import DICOM, NotAcceptable, accepted, choose
from api.dicom.web.related import NoInstances, Part, read_parts
from api.dicom.web.resources import PREFIX, STUDY, StudyUid, dicomweb, url_of
from api.dicom.web.warnings import warn_of_unknown
from api.http.audit import note, recorded
from api.http.auth import identity, requires
from api.http.body import takes_uploads
from api.http.errors import may_raise
from api.http.idempotency import forget_answer, idempotent
from api.http.services import services
from shared.errors import CarinaError, MalformedUpload, PermanentError, Place, UnsupportedFileType, UnsupportedMediaType
from shared.imaging.dicom_file import read_dicom
from shared.imaging.header import ImageHeader, check_identity
from shared.intake.receive import Intake, Received
from shared.vocabulary.states import Scope

log = structlog.get_logger()

blueprint = dicomweb("stow")
warn_of_unknown(blueprint)


class StudyMismatch(PermanentError):
    """The instance belongs to another study than the URL names."""

    code = "study_uid_mismatch"
    places = Place.FILE


#: FailureReason (0008,1197) by Carina's code. PS3.18 table I.2-2 defines the classes and leaves `xx` to
#: implementations.
FAILURE_REASONS = {
    "not_an_image": 0x0122,  # Referenced SOP Class not supported
    "unsupported_transfer_syntax": 0xC122,  # Referenced Transfer Syntax not supported
    "study_uid_mismatch": 0xA900,  # A9xx: Data Set does not match SOP Class
    "missing_uid": 0xA901,
    "invalid_uid": 0xA902,
    "empty_file": 0xC001,  # Cxxx: Cannot understand
    "unsupported_file_type": 0xC002,
    "malformed_dicom": 0xC003,
    "multi_frame": 0xC010,
    "colour_image": 0xC011,
    "image_too_small": 0xC012,
    "image_too_large": 0xC013,
}
_PROCESSING_FAILURE = 0x0110

#: Number of bytes of a rejected file that are searched for its UIDs.
_MAX_PREFIX_BYTES = 256 * 1024
_UID = re.compile(r"[0-9.]{1,64}")

_BODY = {
    "required": True,
    "content": {
        'multipart/related; type="application/dicom"': {"schema": {"type": "string", "format": "binary"}},
        DICOM: {"schema": {"type": "string", "format": "binary"}},
    },
}
_MODULE = attribute("RetrieveURL", "https://carina.example/dicom-web/studies/1.2.826.0.1.3680043.8.498.1")
_RESPONSES: ResponseDict = {
    "200": described("All instances are stored.", _MODULE, schema={"type": "object"}),
    "202": described("Some instances are stored; the others have a reason.", _MODULE, schema={"type": "object"}),
    "409": described("No instance is stored; each has a reason.", _MODULE, schema={"type": "object"}),
}


@dataclass(frozen=True)
class _Stored:
    """A stored instance: its UIDs as sent, and its URL."""

    sop_class_uid: str
    instance_uid: str
    study_id: UUID
    study_url: str
    url: str


@dataclass(frozen=True)
class _Failed:
    """A rejected instance, with its UIDs if its header has them."""

    error: PermanentError
    sop_class_uid: str | None
    instance_uid: str | None


@blueprint.post(f"{PREFIX}/studies", responses=_RESPONSES, openapi_extensions={"requestBody": _BODY})
@requires(Scope.SUBMIT)
@takes_uploads
@idempotent
@may_raise(NoInstances, MalformedUpload, UnsupportedMediaType, NotAcceptable)
def store() -> Response:
    """Store instances (STOW-RS).

    Send DICOM files as `multipart/related`, or one as `application/dicom`. Each instance is answered on its own. Status
    202 means that some instances are not stored, 409 that none is; the answer has a reason for each.
    """
    return _store(None)


@blueprint.post(STUDY, responses=_RESPONSES, openapi_extensions={"requestBody": _BODY})
@requires(Scope.SUBMIT)
@takes_uploads
@idempotent
@may_raise(NoInstances, MalformedUpload, UnsupportedMediaType, NotAcceptable)
def store_study(path: StudyUid) -> Response:
    """Store instances of one study (STOW-RS).

    As without a study; an instance of another study is refused with `study_uid_mismatch`.
    """
    return _store(path.study_uid)


def _store(study_uid: str | None) -> Response:
    content_type = choose(accepted(), OFFERED)
    settings, intake = services().settings, services().intake(identity().project_id, key_id=identity().key_id)
    if settings.deidentify != "off":
        forget_answer()  # it contains the UIDs as sent; a repeated request finds duplicates
    stored: list[_Stored] = []
    failed: list[_Failed] = []
    try:
        for part in read_parts(request, max_bytes=settings.max_upload_bytes, max_parts=settings.max_files):
            result = _receive(intake, part, study_uid)
            if isinstance(result, _Stored):
                stored.append(result)
            else:
                failed.append(result)
    finally:
        intake.send_hints()
        codes = Counter(each.error.code for each in failed)
        log.info("instances_received", project_id=str(identity().project_id), stored=len(stored), **codes)
    note(stored=len(stored), failed=len(failed), study_ids=sorted({str(each.study_id) for each in stored}))
    status = (202 if failed else 200) if stored else 409
    return Response(to_text(_describe(stored, failed)), status, content_type=content_type)


def _receive(intake: Intake, part: Part, study_uid: str | None) -> _Stored | _Failed:
    prefix = bytearray()
    sent: list[ImageHeader] = []

    def check(header: ImageHeader) -> None:
        if header.media_type != DICOM:
            raise UnsupportedFileType("The part is no DICOM file.")
        if study_uid is not None and header.study_instance_uid not in (study_uid, None):
            raise StudyMismatch
        check_identity(header)
        sent.append(header)

    try:
        if part.media_type != DICOM:
            raise UnsupportedFileType("The part's media type is not application/dicom.")
        received = intake.receive(_remember(part.chunks, prefix), check=check, also=_note)
    except PermanentError as error:
        return _Failed(error, *_identify(bytes(prefix)))
    header = received.header  # if originals are de-identified, it has the UIDs of the stored file
    study = header.study_instance_uid or ""
    return _Stored(
        sop_class_uid=sent[0].sop_class_uid or "",
        instance_uid=sent[0].sop_instance_uid or "",
        study_id=received.study_id,
        study_url=url_of(study),
        url=url_of(study, header.series_instance_uid, header.sop_instance_uid),
    )


def _note(session: Session, received: Received) -> None:
    """Write the audit row of each instance in the transaction of its own rows."""
    note(stored=1, study_ids=[str(received.study_id)])
    recorded(session)


def _remember(chunks: Iterator[bytes], prefix: bytearray) -> Iterator[bytes]:
    for chunk in chunks:
        prefix += chunk[: _MAX_PREFIX_BYTES - len(prefix)]
        yield chunk


def _identify(prefix: bytes) -> tuple[str | None, str | None]:
    """Return the SOP class and instance UID of a rejected file, if it has them."""
    keywords = ["SOPClassUID", "SOPInstanceUID"]
    with suppress(CarinaError):
        file = read_dicom(prefix, max_bytes=_MAX_PREFIX_BYTES, kept=keywords)
        uids = [uid if (uid := file.text(keyword)) and _UID.fullmatch(uid) else None for keyword in keywords]
        return uids[0], uids[1]
    return None, None


def _describe(stored: list[_Stored], failed: list[_Failed]) -> DataSet:
    """Return the Store Instances Response Module, PS3.18 table I.1-1."""
    urls = {each.study_url for each in stored}
    answer = attribute("RetrieveURL", *(urls if len(urls) == 1 else ()))
    named = [each for each in failed if each.sop_class_uid and each.instance_uid]
    unknown = [each for each in failed if each not in named]
    if stored:
        references = [_reference(each) | attribute("RetrieveURL", each.url) for each in stored]
        answer |= attribute("ReferencedSOPSequence", *references)
    if named:
        answer |= attribute("FailedSOPSequence", *(_reference(each) | _reason(each) for each in named))
    if unknown:
        answer |= attribute("OtherFailuresSequence", *(_reason(each) for each in unknown))
    return answer


def _reference(instance: _Stored | _Failed) -> DataSet:
    return attribute("ReferencedSOPClassUID", instance.sop_class_uid) | attribute(
        "ReferencedSOPInstanceUID", instance.instance_uid
    )


def _reason(failed: _Failed) -> DataSet:
    """Return the standard's number, and Carina's code and message in a private block (PS3.5 section 7.8)."""
    reason = FAILURE_REASONS.get(failed.error.code, _PROCESSING_FAILURE)
    return attribute("FailureReason", reason) | {
        "00090010": {"vr": "LO", "Value": ["CARINA"]},
        "00091001": {"vr": "LO", "Value": [failed.error.code]},
        "00091002": {"vr": "LT", "Value": [failed.error.public_detail]},
    }
