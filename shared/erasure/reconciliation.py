"""Compares the bucket with the rows, in both directions.

An object without a row is left behind by an upload or a training that was killed before it wrote the row, or by a job
that was cancelled while it was prepared. A row without its object is the result of damage to the bucket. Objects are
written before their rows, so the rows are read first here, and an object counts as unused only from a certain age on.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database import Database
from shared.erasure.objects import erase_if_unused, find_unused
from shared.errors import ObjectMissing
from shared.leases import change, waiting_values
from shared.object_store import (
    ObjectStore,
    StoredObject,
    dataset_key,
    digest_in,
    original_key,
    rendition_key,
    result_key,
    weights_key,
)
from shared.queue.stages import PREPARE
from shared.tables import Dataset, Evaluation, Image, Job, Model, Rendition
from shared.vocabulary.states import JobState

#: An object without a row is removed at this age: uploads store the object seconds before the row.
UNUSED_AFTER = timedelta(hours=24)
#: The parts of the bucket that are checked one by one, so that their keys fit into memory.
PARTS = [*(f"{folder}/{digit:x}" for folder in ("originals", "renditions") for digit in range(16)), "other"]
_AT_A_TIME = 1000
#: The keys of objects that are removed without a row. Of the trainer's outputs, these are the event files of trainings:
#: the rows of other outputs follow minutes later, and a batch that is kept for inspection has no row.
_COLLECTED = re.compile(r"originals/|renditions/|results/.*\.tfevents$")


@dataclass(frozen=True)
class Missing:
    """A row whose object is missing."""

    table: str
    id: str
    key: str
    #: Whether Carina can make the object again.
    repairable: bool = False


@dataclass(frozen=True)
class Found:
    """The result of the check of a part."""

    objects: int = 0
    unused: list[StoredObject] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)


class Reconciliation:
    """Finds objects without rows and rows without objects, and repairs both. Others may work meanwhile."""

    def __init__(self, database: Database, store: ObjectStore, unused_after: timedelta = UNUSED_AFTER) -> None:
        self._database = database
        self._store = store
        self._unused_after = unused_after
        self._of_datasets: dict[str, str] | None = None

    def check(self, part: str) -> Found:
        """Check one of `PARTS`."""
        if part == "other":
            return self._check_others()
        folder, _, digit = part.partition("/")
        rows = self._originals(digit) if folder == "originals" else self._renditions(digit)
        objects = list(self._store.objects(part))
        keys = {found.key for found in objects}
        missing = [row for row in rows if row.key not in keys]
        return Found(len(objects), list(self._unused(objects)), [row for row in missing if self._is_missing(row)])

    def find_unused(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects with this prefix that no row needs any more and that are old enough.

        These are originals, renditions, and event files of trainings.
        """
        return self._unused(self._store.objects(prefix))

    def remove(self, key: str) -> None:
        """Remove an object, unless a row refers to it by now."""
        with self._database.begin() as session:
            erase_if_unused(session, self._store, key)

    def repair(self, row: Missing) -> bool:
        """Have a missing rendition made again; return whether that is possible."""
        if row.repairable:
            with self._database.begin() as session:
                _forget_rendition(session, row)
        return row.repairable

    def _unused(self, objects: Iterator[StoredObject] | Sequence[StoredObject]) -> Iterator[StoredObject]:
        latest = datetime.now(UTC) - self._unused_after
        old = (found for found in objects if found.written_at <= latest and _COLLECTED.match(found.key))
        while some := list(islice(old, _AT_A_TIME)):
            with self._database.begin() as session:
                unused = find_unused(session, [found.key for found in some])
            if any(key.startswith("renditions/") for key in unused):
                unused -= self.renditions_of_datasets().keys()
            yield from (found for found in some if found.key in unused)

    def renditions_of_datasets(self) -> dict[str, str]:
        """Return the renditions in the documents of all datasets, with the id of a dataset that needs each.

        A dataset keeps an image's rendition even if the image has got another one since.
        """
        if self._of_datasets is None:
            made = sa.select(Dataset.id, Dataset.digest, Dataset.erased_count)
            with self._database.begin() as session:
                datasets = session.execute(made.where(Dataset.digest.is_not(None))).all()
            found: dict[str, str] = {}
            for dataset_id, digest, erased_count in datasets:
                try:
                    images = json.loads(self._store.get(dataset_key(digest or ""), sha256=digest or ""))["images"]
                except ObjectMissing:  # reported as such
                    continue
                needed_by = "" if erased_count else str(dataset_id)
                found |= {rendition_key(image["rendition_sha256"]): needed_by for image in images}
            self._of_datasets = found
        return self._of_datasets

    def _originals(self, digit: str) -> list[Missing]:
        with self._database.begin() as session:
            kept = sa.select(Image.id, Image.sha256).where(Image.original_deleted_at.is_(None))
            images = session.execute(kept.where(Image.sha256.startswith(digit))).all()
        return [Missing("image", str(image_id), original_key(sha256)) for image_id, sha256 in images]

    def _renditions(self, digit: str) -> list[Missing]:
        """Return what the rows of images, of imports and the documents of datasets need."""
        with self._database.begin() as session:
            here = Image.rendition_sha256.startswith(digit)
            images = session.execute(sa.select(Image.id, Image.rendition_sha256).where(here)).all()
            here = Rendition.rendition_sha256.startswith(digit)
            imported = session.execute(sa.select(Rendition.sha256, Rendition.rendition_sha256).where(here)).all()
        needed = [
            Missing("image", str(row_id), rendition_key(sha256 or ""), repairable=True) for row_id, sha256 in images
        ]
        needed += [Missing("rendition", row_id, rendition_key(sha256), repairable=True) for row_id, sha256 in imported]
        begin = f"renditions/{digit}"
        of_datasets = self.renditions_of_datasets().items()
        return needed + [
            Missing("dataset", row_id, key) for key, row_id in of_datasets if row_id and key.startswith(begin)
        ]

    def _check_others(self) -> Found:
        with self._database.begin() as session:
            rows = [
                Missing("model", str(row.id), weights_key(row.weights_sha256))
                for row in session.scalars(sa.select(Model))
            ]
            for dataset in session.scalars(sa.select(Dataset).where(Dataset.digest.is_not(None))):
                rows.append(Missing("dataset", str(dataset.id), dataset_key(dataset.digest or "")))
                if dataset.failures_sha256:
                    rows.append(Missing("dataset", str(dataset.id), result_key(dataset.failures_sha256, "jsonl")))
            for evaluation in session.scalars(sa.select(Evaluation)):
                for sha256, suffix in ((evaluation.report_sha256, "html"), (evaluation.detections_sha256, "json")):
                    if sha256:
                        rows.append(Missing("evaluation", str(evaluation.id), result_key(sha256, suffix)))
        results = list(self._store.objects("results/"))
        keys = {found.key for found in results}
        keys |= {key for folder in ("models/", "datasets/") for key in self._store.keys(folder)}
        missing = [row for row in rows if row.key not in keys and not self._store.has(row.key)]
        return Found(len(keys), list(self._unused(results)), missing)

    def _is_missing(self, row: Missing) -> bool:
        """Whether the object is still missing and the row still needs it: it may have been erased meanwhile."""
        if self._store.has(row.key):
            return False
        if row.table != "image":
            return True
        with self._database.begin() as session:
            image = session.get(Image, UUID(row.id))
            if image is None:
                return False
            is_original = row.key == original_key(image.sha256) and image.original_deleted_at is None
            return is_original or row.key == rendition_key(image.rendition_sha256 or "")


def _forget_rendition(session: Session, row: Missing) -> None:
    sha256 = digest_in(row.key)
    if row.table == "rendition":  # the next import of this original makes it again
        session.execute(sa.delete(Rendition).where(Rendition.sha256 == row.id, Rendition.rendition_sha256 == sha256))
        return
    image = session.get(Image, UUID(row.id), with_for_update={"key_share": True})
    if image is None or image.rendition_sha256 != sha256:
        return
    image.rendition_sha256 = image.rendition_version = None
    image.rendition_height_px = image.rendition_width_px = image.rendition_byte_count = None
    is_ready = sa.and_(Job.image_id == image.id, Job.state == JobState.READY)
    change(session, Job, is_ready, **waiting_values(PREPARE.waiting), ready_at=None)
    will_prepare = sa.exists().where(Job.image_id == image.id, Job.state.in_([JobState.QUEUED, JobState.PREPARING]))
    if not session.scalar(sa.select(will_prepare)):
        # This job ends as a duplicate if the image has its result already.
        latest = sa.select(Job.model_id).where(Job.image_id == image.id, Job.state == JobState.SUCCEEDED)
        model_id = session.scalar(latest.order_by(Job.id.desc()).limit(1))
        ids = {"project_id": image.project_id, "study_id": image.study_id, "image_id": image.id}
        session.add(Job(**ids, requested_model_id=model_id))
