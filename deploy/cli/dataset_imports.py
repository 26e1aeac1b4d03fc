"""`carina dataset import`, `phantoms` and `reviews`: datasets made on this machine, under a progress bar."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from uuid import UUID

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from sqlalchemy.orm import Session

from deploy.cli.application import Application
from deploy.cli.audit import note
from deploy.cli.console import busy, explain, is_json, out, progress_of, tell
from deploy.cli.datasets import print_summary
from deploy.cli.environment import Data, settings_of
from deploy.cli.projects import InProject, open_project
from shared.access.keys import FIRST_PROJECT
from shared.object_store import ObjectStore
from shared.training.dataset_source import (
    CocoSource,
    Consensus,
    Name,
    PhantomsSource,
    ReviewsSource,
    Source,
    SplitPlan,
    VinBigDataSource,
)

if TYPE_CHECKING:  # the trainer's libraries are only loaded by the commands that use them
    from trainer.datasets.importing import Imported

imports = Application(help="Make a dataset of files on this machine.", no_args_is_help=True)

Chosen = TypeVar("Chosen", bound=BaseModel)
Method = Literal["wbf", "nms", "none"]

_DEFAULTS, _PLAN, _PHANTOMS, _REVIEWS = Consensus(), SplitPlan(), PhantomsSource(), ReviewsSource()

Images = Annotated[Path, typer.Option(help="Folder with the images: DICOM, PNG or JPEG.", exists=True, file_okay=False)]
ValShare = Annotated[float, typer.Option(help="Share of the patients to evaluate on while training.")]
TestShare = Annotated[float, typer.Option(help="Share of the patients to keep for the end.")]
Seed = Annotated[int, typer.Option(help="Decides who goes where.")]
FromDicom = Annotated[
    bool, typer.Option(help="Tell patients apart by DICOM's PatientID (a pseudonym is stored, never the id).")
]
Method_ = Annotated[Method, typer.Option("--consensus", help="How several readers' boxes become one.")]
Iou = Annotated[float, typer.Option(help="Boxes of a class that overlap by more are one finding.")]
MinReaders = Annotated[int, typer.Option(help="Leave out findings that fewer readers have drawn.")]
Readers = Annotated[list[str] | None, typer.Option("--reader", help="Hear this reader only; repeat for several.")]


@imports.command()
def vinbigdata(
    csv: Annotated[Path, typer.Option("--csv", help="`train.csv`, gzipped or not.", exists=True, dir_okay=False)],
    images: Images,
    name: Annotated[str, typer.Option(help="What to call it; a name again is a new version.")] = "vinbigdata",
    consensus: Method_ = _DEFAULTS.method,
    iou: Iou = _DEFAULTS.iou,
    min_readers: MinReaders = _DEFAULTS.min_readers,
    readers: Readers = None,
    val_share: ValShare = _PLAN.val,
    test_share: TestShare = _PLAN.test,
    seed: Seed = _PLAN.seed,
    patients_from_dicom: FromDicom = True,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """Import a table as VinBigData's, with the boxes of several readers."""
    source = _choose(
        VinBigDataSource,
        annotations=str(csv),
        images=str(images),
        patients_from_dicom=patients_from_dicom,
        consensus=_consensus(consensus, iou, min_readers, readers),
        splits=_plan(val_share, test_share, seed),
    )
    _import(name, source, project, data)


@imports.command()
def coco(
    annotations: Annotated[Path, typer.Option(help="A COCO document.", exists=True, dir_okay=False)],
    images: Images,
    val_annotations: Annotated[
        Path | None, typer.Option(help="The documents are the splits: this is val.", exists=True, dir_okay=False)
    ] = None,
    test_annotations: Annotated[
        Path | None, typer.Option(help="The documents are the splits: this is test.", exists=True, dir_okay=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default="the document's name")] = None,
    keep_splits: Annotated[bool, typer.Option("--keep-splits", help="Take the split that each image has.")] = False,
    consensus: Method_ = "none",
    iou: Iou = _DEFAULTS.iou,
    min_readers: MinReaders = _DEFAULTS.min_readers,
    readers: Readers = None,
    val_share: ValShare = _PLAN.val,
    test_share: TestShare = _PLAN.test,
    seed: Seed = _PLAN.seed,
    patients_from_dicom: FromDicom = True,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """Import COCO annotations: one document, or one for each split."""
    source = _choose(
        CocoSource,
        annotations=str(annotations),
        val_annotations=val_annotations and str(val_annotations),
        test_annotations=test_annotations and str(test_annotations),
        images=str(images),
        patients_from_dicom=patients_from_dicom,
        consensus=_consensus(consensus, iou, min_readers, readers),
        splits=_plan(val_share, test_share, seed, keep=keep_splits),
    )
    _import(name or annotations.stem, source, project, data)


def phantoms(
    name: Annotated[str, typer.Option(help="What to call it; a name again is a new version.")] = "phantoms",
    films: Annotated[int, typer.Option(help="How many to draw.")] = _PHANTOMS.films,
    seed: Annotated[int, typer.Option(help="Films of another seed are other films.")] = _PHANTOMS.seed,
    natural: Annotated[bool, typer.Option("--natural", help="Draw classes as often as real films show them.")] = False,
    negative_share: Annotated[float, typer.Option(help="Share of the films that come black for white.")] = 0,
    val_share: ValShare = _PHANTOMS.splits.val,
    test_share: TestShare = _PHANTOMS.splits.test,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """Make a dataset of synthetic films with known lesions of 14 classes."""
    chosen = {"films": films, "seed": seed, "balanced": not natural, "negative_share": negative_share}
    _import(name, _choose(PhantomsSource, **chosen, splits=_plan(val_share, test_share, seed)), project, data)


def reviews(
    name: Annotated[str, typer.Option(help="What to call it; a name again is a new version.")] = "reviews",
    val_share: ValShare = _REVIEWS.splits.val,
    test_share: TestShare = _REVIEWS.splits.test,
    seed: Seed = _REVIEWS.splits.seed,
    patients_from_dicom: FromDicom = True,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """Make a dataset of the images whose review is done, with the findings that their readers accepted."""
    _, project_id = open_project(settings_of(data), project)
    source = _choose(
        ReviewsSource,
        project_id=project_id,
        patients_from_dicom=patients_from_dicom,
        splits=_plan(val_share, test_share, seed),
    )
    _import(name, source, project, data)


def _import(name: str, source: Source, project: str, data: Path | None) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as exc:
        raise typer.BadParameter(f"{name!r} is no name: letters, digits, and . _ - or spaces between them.") from exc
    settings = settings_of(data)
    (database, project_id), store = open_project(settings, project), ObjectStore(settings)
    # Films are drawn and read for minutes before the first is stored.
    database.ping()
    store.ping()
    with busy("Loading"):
        from trainer.datasets.importing import import_here

    with _progress() as progress:
        tasks: dict[str, TaskID] = {}

        def show_progress(what: str, done: int, total: int, failed: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, failed="")
            progress.update(tasks[what], completed=done, failed=f"{failed} failed" if failed else "")

        def also(session: Session, dataset_id: UUID) -> None:
            note(session, "dataset.import", dataset_id=dataset_id)

        imported = import_here(settings, database, store, project_id, name, source, show_progress, also)
    _print_import(name, imported)


def _print_import(name: str, imported: "Imported") -> None:
    if is_json():
        counted = ("image_count", "box_count", "failure_count", "summary")
        described = {key: imported.values[key] for key in counted}
        tell({"id": imported.dataset_id, "name": name, "is_new": imported.is_new} | described)
        return
    print_summary(imported.values["summary"])
    counts = f"{imported.values['image_count']:,} images, {imported.values['box_count']:,} boxes"
    same = "" if imported.is_new else ", the very same as it was: nothing new was made"
    out.print(f"{imported.dataset_id} {name}: {counts}{same}", soft_wrap=True)
    if imported.values["failure_count"]:
        out.print(f"`carina dataset failures {imported.dataset_id}` lists the images that are missing.", soft_wrap=True)


def _consensus(method: Method, iou: float, min_readers: int, readers: list[str] | None) -> Consensus:
    heard = tuple(sorted(set(readers))) if readers else None
    return _choose(Consensus, method=method, iou=iou, min_readers=min_readers, readers=heard)


def _plan(val_share: float, test_share: float, seed: int, *, keep: bool = False) -> SplitPlan:
    train_share = round(1 - val_share - test_share, 9)
    if train_share < 0:
        raise typer.BadParameter("The shares of val and test must not add up to more than 1.")
    return _choose(SplitPlan, train=train_share, val=val_share, test=test_share, seed=seed, keep=keep)


def _choose(kind: type[Chosen], **choices: Any) -> Chosen:
    """Build from what the command line says; what is wrong there is a wrong command line."""
    try:
        return kind(**choices)
    except ValidationError as exc:
        raise typer.BadParameter(explain(exc)) from exc


def _progress() -> Progress:
    columns: list[Any] = [TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn()]
    return progress_of(*columns, TimeRemainingColumn(), TextColumn("[red]{task.fields[failed]}"))
