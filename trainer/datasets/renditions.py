"""Renders the images of an import, several at a time, by the function that serving uses.

Each rendition is recorded in a row (`tables.Rendition`), so that interrupted imports and other datasets with the same
images reuse it.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.database import Database
from shared.erasure import hold_object
from shared.errors import CarinaError, DecoderCrashed, DecoderProcessLost, PermanentError
from shared.imaging.dicom_file import read_patient_id
from shared.imaging.isolation import DecoderPool
from shared.imaging.rendition import Rendition as MadeRendition
from shared.object_store import ObjectStore, rendition_key
from shared.settings import Settings
from shared.tables import Rendition
from shared.version import RENDITION_VERSION
from trainer.datasets.annotations import pseudonym
from trainer.datasets.places import Catalogue, Place

#: Maximum time that one image waits for a database that does not answer, before the import fails.
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Picture:
    """The properties of an original that a dataset needs, and its rendition."""

    sha256: str
    height_px: int
    width_px: int
    rendition_sha256: str
    rendition_height_px: int
    rendition_width_px: int
    #: Pseudonym from the DICOM header; None if the header has no patient.
    patient: str | None = None


_STORED = tuple(field.name for field in fields(Picture) if field.name != "patient")


@dataclass(frozen=True)
class Failure:
    """An image that could not be imported, and the reason."""

    file_name: str
    #: Stable code, as in the errors of `shared.errors`.
    code: str
    reason: str

    @classmethod
    def of(cls, file_name: str, error: CarinaError) -> "Failure":
        """Return the failure of an image for an error."""
        return cls(file_name, error.code, error.detail)


class Renderer:
    """Makes the renditions of the images of a place, or reuses existing ones."""

    def __init__(self, settings: Settings, database: Database, store: ObjectStore, place: Place) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._place = place

    def render(
        self, file_names: Sequence[str], *, patients_from_dicom: bool
    ) -> Iterator[tuple[str, Picture | Failure]]:
        """Yield the picture or the failure of each image, in the order of the names.

        Raises errors of the servers, because they do not depend on the image.
        """
        catalogue = Catalogue(self._place)
        threads = self._settings.prepare_threads
        waiting: deque[tuple[str, Future[Picture | Failure]]] = deque()
        settings = self._settings
        decoder_pool = DecoderPool(threads, settings.decode_timeout_s, required=settings.required_protections)
        with decoder_pool as decoders, ThreadPoolExecutor(threads) as pool:
            try:
                for file_name in file_names:
                    work = pool.submit(self._take, file_name, catalogue, decoders, patients_from_dicom)
                    waiting.append((file_name, work))
                    # A few images in advance keep all threads busy, and memory bounded.
                    if len(waiting) >= 3 * threads:
                        name, taken = waiting.popleft()
                        yield name, taken.result()
                while waiting:
                    name, taken = waiting.popleft()
                    yield name, taken.result()
            finally:
                for _, work in waiting:
                    work.cancel()

    def _take(
        self, file_name: str, catalogue: Catalogue, decoders: DecoderPool, patients_from_dicom: bool
    ) -> Picture | Failure:
        try:
            data = self._place.read(catalogue.find(file_name))
            sha256 = hashlib.sha256(data).hexdigest()
            picture = self._known(sha256) or self._make(data, sha256, decoders)
            patient_id = read_patient_id(data) if patients_from_dicom else None
        except PermanentError as error:
            return Failure.of(file_name, error)
        return replace(picture, patient=pseudonym(patient_id)) if patient_id else picture

    def _known(self, sha256: str) -> Picture | None:
        made = sa.select(*(getattr(Rendition, name) for name in _STORED)).where(
            Rendition.sha256 == sha256,
            Rendition.version == RENDITION_VERSION,
            Rendition.rendition_px == self._settings.rendition_px,
        )
        row = self._database.persist(lambda session: session.execute(made).one_or_none(), within_s=_PATIENCE_S)
        return None if row is None else Picture(*row)

    def _make(self, data: bytes, sha256: str, decoders: DecoderPool) -> Picture:
        rendition = self._decode(data, decoders)
        rendition_sha256 = hashlib.sha256(rendition.png).hexdigest()
        self._store.put(rendition_key(rendition_sha256), rendition.png)
        picture = Picture(
            sha256=sha256,
            height_px=rendition.original_height_px,
            width_px=rendition.original_width_px,
            rendition_sha256=rendition_sha256,
            rendition_height_px=rendition.height_px,
            rendition_width_px=rendition.width_px,
        )
        row = {name: getattr(picture, name) for name in _STORED}
        row |= {"version": rendition.version, "rendition_px": self._settings.rendition_px}
        # Another import can have made the same rendition in the meantime.
        change = insert(Rendition).values(row).on_conflict_do_nothing()

        def record(session: Session) -> None:
            hold_object(session, self._store, rendition_key(rendition_sha256))
            session.execute(change)

        self._database.persist(record, within_s=_PATIENCE_S)
        return picture

    def _decode(self, data: bytes, decoders: DecoderPool) -> MadeRendition:
        size = {"rendition_px": self._settings.rendition_px, "max_image_pixels": self._settings.max_image_pixels}
        try:
            return decoders.render(data, **size)
        except DecoderProcessLost:
            # Another image may have used up the memory. If it happens twice, this image is the cause.
            try:
                return decoders.render(data, **size)
            except DecoderProcessLost:
                raise DecoderCrashed from None
