"""Imports a dataset and writes its row: in the trainer for a task, or in the command line on its own machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
import structlog
from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from shared.database import Database
from shared.object_store import ObjectStore
from shared.settings import Settings
from shared.tables import Dataset
from shared.training.dataset_source import Source
from shared.training.datasets import latest
from shared.vocabulary.states import TaskState
from trainer.datasets.making import Made, Maker, OnProgress, UnreadablePlace, open_here, open_stored
from trainer.task import Work

log = structlog.get_logger()

#: Minimum time between two progress reports of a task.
REPORT_EVERY_S = 1.0


@dataclass(frozen=True)
class Imported:
    """The result of an import."""

    dataset_id: UUID
    #: False if the latest dataset with this name has the same content.
    is_new: bool
    values: dict[str, Any]


def run(work: Work) -> None:
    """Run an import task; its source is in the object store."""
    with work.database.begin() as session:
        row = session.get_one(Dataset, work.claim.task_id)
        name, source = row.name, _SOURCE.validate_python(row.source)
    report = _seldom(lambda what, done, total, failed: work.report(what=what, done=done, total=total, failed=failed))
    maker = Maker(work.settings, work.database, work.store, report)
    with open_stored(source, work.database, work.store, report) as material:
        made = maker.make(name, source, material)
    values = maker.store(made)
    progress = _finished(made)
    with work.database.begin() as session:
        work.succeed(session, **values, progress=progress)
    log.info("dataset_made", images=values["image_count"], boxes=values["box_count"], failures=values["failure_count"])


def import_here(
    settings: Settings,
    database: Database,
    store: ObjectStore,
    project_id: UUID,
    name: str,
    source: Source,
    on_progress: OnProgress,
    also: Callable[[Session, UUID], None] = lambda *_: None,
) -> Imported:
    """Import a dataset for a project from files on this machine. Its row is written at the end, together with `also`.

    An import that fails or is interrupted leaves no row, only renditions that the next import reuses. If the content is
    unchanged, the existing row is returned. Raises the errors of `Maker.make`, and `UnreadablePlace`.
    """
    maker = Maker(settings, database, store, on_progress)
    try:
        with open_here(source, database, store, on_progress) as material:
            made = maker.make(name, source, material)
    except OSError as exc:
        raise UnreadablePlace(f"{exc.filename or 'A file'}: {exc.strerror or exc}.") from exc
    values = maker.store(made)
    with database.begin() as session:
        known = _same(session, project_id, name, made)
        if known is not None:
            known.summary = values["summary"]  # an earlier version may have counted less
            also(session, known.id)
            return Imported(known.id, False, values)
        row = Dataset(
            project_id=project_id,
            name=name,
            source=_without_folders(source),
            state=TaskState.SUCCEEDED,
            started_at=sa.func.now(),
            finished_at=sa.func.now(),
            progress=_finished(made),
            **values,
        )
        session.add(row)
        session.flush()
        also(session, row.id)
        return Imported(row.id, True, values)


_SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


def _without_folders(source: Source) -> dict[str, Any]:
    """Return the source for the row, which all users of the API can see: files and folders only by their last name."""
    fields = source.model_dump(mode="json")
    places = {"images", "annotations", "val_annotations", "test_annotations"} & fields.keys()
    return fields | {place: Path(fields[place]).absolute().name for place in places if fields[place] is not None}


def _same(session: Session, project_id: UUID, name: str, made: Made) -> Dataset | None:
    known = latest(session, project_id, name)
    return known if known is not None and known.digest == made.digest else None


def _finished(made: Made) -> dict[str, Any]:
    images = sum(split["images"] for split in made.summary["splits"].values())
    failed = len(made.failures)
    return {"what": "rendering", "done": images + failed, "total": images + failed, "failed": failed}


def _seldom(report: OnProgress) -> Callable[[Literal["drawing", "rendering"], int, int, int], None]:
    """Pass on at most one report each `REPORT_EVERY_S`."""
    reported_at = -REPORT_EVERY_S

    def pass_on(what: Literal["drawing", "rendering"], done: int, total: int, failed: int) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= REPORT_EVERY_S:
            reported_at = time.monotonic()
            report(what, done, total, failed)

    return pass_on
