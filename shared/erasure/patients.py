"""Finds the studies of a patient, without keeping the PatientID: each image has a pseudonym of it.

The pseudonym is the one that de-identification writes into files: derived from the PatientID with the project's key.
Images that were received before there was this column get it from their headers, some at a time (`read_patients`).
"""

from collections.abc import Callable
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database import Database
from shared.deidentification.pseudonyms import Pseudonyms
from shared.errors import CarinaError, ObjectMissing, RequestError
from shared.imaging.dicom_file import read_patient_id
from shared.imaging.header import PREFIX_BYTES
from shared.object_store import ObjectStore, original_key
from shared.tables import Image, Project
from shared.tables.studies import PATIENT_UNREAD

#: Enough for the patient in most headers.
_FIRST_BYTES = 64 * 1024


class PatientsUnread(RequestError):
    """The headers of older images have not been read for their patients yet. Try again in an hour."""

    code = "patients_unread"
    status = 409


def pseudonym(patient_id: str, key: bytes) -> str:
    """Return the pseudonym of a patient in the project with this key, as de-identified files have it."""
    return Pseudonyms(key).identifier("PatientID", patient_id)


def patient_of(prefix: bytes, key: Callable[[], bytes]) -> str:
    """Return the pseudonym of the patient in a header; empty if it names none. `key` is called only if it does."""
    try:
        patient_id = (read_patient_id(prefix) or "").strip()
    except CarinaError:  # the prefix ends within the header
        return ""
    return pseudonym(patient_id, key()) if patient_id else ""


def find_studies(session: Session, project_id: UUID, patient_id: str) -> list[UUID]:
    """Return a patient's studies in a project; raise `PatientsUnread` if some images may be the patient's too.

    A de-identified file has a pseudonym as its PatientID, so both the PatientID and its pseudonym are looked for.
    """
    unread = sa.select(sa.func.count()).select_from(Image)
    unread = unread.where(Image.project_id == project_id, sa.text(PATIENT_UNREAD))
    if count := session.scalar(unread):
        raise PatientsUnread(f"The headers of {count} images have not been read for their patients yet.")
    key = session.get_one(Project, project_id).pseudonym_key
    once = pseudonym(patient_id.strip(), key)
    is_patient = Image.patient.in_([once, pseudonym(once, key)])
    studies = sa.select(Image.study_id).where(Image.project_id == project_id, is_patient, sa.text("patient <> ''"))
    return sorted(set(session.scalars(studies)))


def read_patients(database: Database, store: ObjectStore, limit: int) -> int:
    """Read the headers of some images for their patients; return how many were read."""
    with database.begin() as session:
        columns = (Image.id, Image.sha256, Image.byte_count, Project.pseudonym_key)
        unread = sa.select(*columns).join(Project, Project.id == Image.project_id)
        images = session.execute(unread.where(sa.text(PATIENT_UNREAD)).limit(limit)).all()
    for image_id, sha256, byte_count, key in images:
        patient = _read_patient(store, sha256, byte_count, key)
        with database.begin() as session:
            change = sa.update(Image).where(Image.id == image_id).values(patient=patient)
            session.execute(change.execution_options(synchronize_session=False))
    return len(images)


def _read_patient(store: ObjectStore, sha256: str, byte_count: int, key: bytes) -> str:
    for limit in (_FIRST_BYTES, PREFIX_BYTES):
        try:
            prefix = store.get_prefix(original_key(sha256), min(limit, byte_count))
        except ObjectMissing:
            return ""
        if (patient := patient_of(prefix, lambda: key)) or len(prefix) >= byte_count:
            return patient
    return ""
