"""Reads the headers of stored originals from the object store, because the database contains no patient data."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flask import Flask, current_app
from pydicom.dataset import Dataset

from api.dicom.web.dicom_json import DataSet, from_dataset
from api.http.services import Services
from shared.errors import MalformedDicom, ObjectMissing
from shared.imaging.dicom_file import DicomFile, read_dicom
from shared.imaging.header import PREFIX_BYTES
from shared.object_store import ObjectStore, original_key

#: Enough for the header of most images; for the others, more is read.
_FIRST_BYTES = 64 * 1024
_MAX_KEPT = 2000
_THREADS = 8
#: Name of the header cache in the Flask application.
_NAME = "carina.dicom_headers"

#: Attributes in search results: PS3.18 tables 10.6.3-3 to 10.6.3-5, and others that viewers request.
SEARCHED = [
    "SpecificCharacterSet", "StudyDate", "SeriesDate", "ContentDate", "StudyTime", "SeriesTime", "ContentTime",
    "AccessionNumber", "Modality", "Manufacturer", "InstitutionName", "ReferringPhysicianName", "StudyDescription",
    "SeriesDescription", "TimezoneOffsetFromUTC", "SOPClassUID", "SOPInstanceUID", "PatientName", "PatientID",
    "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "BodyPartExamined", "ViewPosition",
    "StudyInstanceUID", "SeriesInstanceUID", "StudyID", "SeriesNumber", "InstanceNumber", "Laterality",
    "ImageLaterality", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
]  # fmt: skip


@dataclass(frozen=True)
class Original:
    """One stored DICOM file."""

    sha256: str
    byte_count: int


def read_header(store: ObjectStore, original: Original, kept: Sequence[str] | None = None) -> DicomFile:
    """Read an original up to its pixel data. Raises `ObjectMissing`, `ObjectStoreUnavailable` or `MalformedDicom`."""
    file = None
    for max_bytes in (_FIRST_BYTES, PREFIX_BYTES):
        prefix = store.get_prefix(original_key(original.sha256), min(max_bytes, original.byte_count))
        whole = len(prefix) >= original.byte_count
        try:
            file = read_dicom(prefix, max_bytes=PREFIX_BYTES, kept=kept)
        except MalformedDicom:  # the prefix can end within the header
            if whole or max_bytes == PREFIX_BYTES:
                raise
            continue
        if whole or file.pixel_data is not None:
            break
    assert file is not None
    return file


class Headers:
    """Caches the attributes in search results, for the most recently requested originals. Thread-safe."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        #: By digest. Kept only in memory, and read only for rows that the request's key is allowed to see.
        self._kept: OrderedDict[str, DataSet] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, originals: Sequence[Original]) -> list[DataSet]:
        """Return the headers of the originals; empty if an original is missing or unreadable."""
        with self._lock:
            found = {each.sha256: self._kept.get(each.sha256) for each in originals}
        missing = {each.sha256: each for each in originals if found[each.sha256] is None}
        if missing:
            with ThreadPoolExecutor(min(_THREADS, len(missing))) as pool:
                found |= dict(zip(missing, pool.map(self._read, missing.values()), strict=True))
            with self._lock:
                self._kept.update((sha256, header) for sha256 in missing if (header := found[sha256]))
                while len(self._kept) > _MAX_KEPT:
                    self._kept.popitem(last=False)
        return [found[each.sha256] or {} for each in originals]

    def _read(self, original: Original) -> DataSet:
        try:
            dataset: Dataset = read_header(self.store, original, SEARCHED).dataset
        except (ObjectMissing, MalformedDicom):
            return {}
        return from_dataset(dataset)


def install(app: Flask, services: Services) -> None:
    """Add the header cache to the application."""
    app.extensions[_NAME] = Headers(services.store)


def header_cache() -> Headers:
    """Return the header cache of the current application."""
    found: Headers = current_app.extensions[_NAME]
    return found
