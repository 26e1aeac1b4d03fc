"""`carina dataset import`: datasets of files on this machine.

The files are read and rendered here, and their renditions go straight to the object store: so these commands need the
credentials of the database and the object store, and the extra `trainer`. Files in a bucket are imported by a trainer,
with `POST /v1/datasets`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from uuid import UUID

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deploy.cli.application import Application
from deploy.cli.console import busy, explain, progress_of
from deploy.cli.datasets import FromDicom, NewName, Seed, TestShare, ValShare, plan_splits, print_made
from deploy.cli.environment import Data, settings_of
from shared.training.dataset_source import (
    CocoSource,
    Consensus,
    Name,
    Source,
    SplitPlan,
    VinBigDataSource,
    VocSource,
    YoloSource,
)

if TYPE_CHECKING:  # the database is only loaded by the commands that use it
    from sqlalchemy.orm import Session

imports = Application(
    help="Make a dataset of files on this machine; needs the credentials of the database and the object store.",
    no_args_is_help=True,
)

InProject = Annotated[
    str | None, typer.Option("--project", help="The project.", show_default="that of CARINA_API_KEY, or `default`")
]

Chosen = TypeVar("Chosen", bound=BaseModel)
Method = Literal["wbf", "nms", "none"]

_DEFAULTS, _PLAN = Consensus(), SplitPlan()

KeepSplits = Annotated[bool, typer.Option("--keep-splits", help="Take the split that each image has.")]
HowToMerge = Annotated[Method, typer.Option("--consensus", help="How the boxes of several readers become one.")]


@dataclass(frozen=True, kw_only=True)
class Common:
    """The options of each import."""

    images: Annotated[
        Path, typer.Option(help="Folder with the images: DICOM, PNG or JPEG.", exists=True, file_okay=False)
    ]
    val_share: ValShare = _PLAN.val
    test_share: TestShare = _PLAN.test
    seed: Seed = _PLAN.seed
    patients_from_dicom: FromDicom = True
    project: InProject = None
    data: Data = None

    def of_source(self, *, keep_splits: bool) -> dict[str, Any]:
        """Return the fields that each source has."""
        splits = plan_splits(self.val_share, self.test_share, self.seed, keep=keep_splits)
        return {"images": str(self.images), "patients_from_dicom": self.patients_from_dicom, "splits": splits}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The options of labels by several readers."""

    iou: Annotated[float, typer.Option(help="Boxes of a class that overlap by more are one finding.")] = _DEFAULTS.iou
    min_readers: Annotated[int, typer.Option(help="Leave out findings that fewer readers have drawn.")] = (
        _DEFAULTS.min_readers
    )
    readers: Annotated[
        list[str] | None, typer.Option("--reader", help="Use only this reader's boxes; repeat for several.")
    ] = None

    def merged(self, method: Method) -> Consensus:
        """Return how their boxes become one; raises `typer.BadParameter`."""
        readers = tuple(sorted(set(self.readers))) if self.readers else None
        return _choose(Consensus, method=method, iou=self.iou, min_readers=self.min_readers, readers=readers)


@imports.command()
def vinbigdata(
    common: Common,
    reading: Reading,
    csv: Annotated[Path, typer.Option("--csv", help="`train.csv`, gzipped or not.", exists=True, dir_okay=False)],
    name: NewName = "vinbigdata",
    consensus: HowToMerge = _DEFAULTS.method,
) -> None:
    """Import a table like VinBigData's `train.csv`, with the boxes of several readers."""
    source = _choose(
        VinBigDataSource,
        annotations=str(csv),
        consensus=reading.merged(consensus),
        **common.of_source(keep_splits=False),
    )
    _import(name, source, common)


@imports.command()
def coco(
    common: Common,
    reading: Reading,
    annotations: Annotated[Path, typer.Option(help="A COCO document.", exists=True, dir_okay=False)],
    val_annotations: Annotated[
        Path | None, typer.Option(help="The documents are the splits: this is val.", exists=True, dir_okay=False)
    ] = None,
    test_annotations: Annotated[
        Path | None, typer.Option(help="The documents are the splits: this is test.", exists=True, dir_okay=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset.", show_default="the document's name")] = None,
    keep_splits: KeepSplits = False,
    consensus: HowToMerge = "none",
) -> None:
    """Import COCO annotations: one document, or one for each split."""
    source = _choose(
        CocoSource,
        annotations=str(annotations),
        val_annotations=val_annotations and str(val_annotations),
        test_annotations=test_annotations and str(test_annotations),
        consensus=reading.merged(consensus),
        **common.of_source(keep_splits=keep_splits),
    )
    _import(name or annotations.stem, source, common)


@imports.command()
def yolo(
    common: Common,
    labels: Annotated[
        Path, typer.Option(help="Folder with the labels and data.yaml or classes.txt.", exists=True, file_okay=False)
    ],
    name: NewName = "yolo",
    keep_splits: KeepSplits = False,
) -> None:
    """Import YOLO's label files."""
    source = _choose(
        YoloSource,
        annotations=str(labels),
        **common.of_source(keep_splits=keep_splits),
    )
    _import(name, source, common)


@imports.command()
def voc(
    common: Common,
    reading: Reading,
    annotations: Annotated[
        Path, typer.Option(help="Folder with the XML files, and `ImageSets`.", exists=True, file_okay=False)
    ],
    name: NewName = "voc",
    keep_splits: KeepSplits = False,
    consensus: HowToMerge = "none",
) -> None:
    """Import the XML files of Pascal VOC."""
    source = _choose(
        VocSource,
        annotations=str(annotations),
        consensus=reading.merged(consensus),
        **common.of_source(keep_splits=keep_splits),
    )
    _import(name, source, common)


def _import(name: str, source: Source, common: Common) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as exc:
        raise typer.BadParameter(
            f"{name!r} is not a valid name. Use letters and digits, with . _ - or spaces between them."
        ) from exc
    from deploy.cli.projects import connect_to_project
    from shared.access.audit import CLI, record
    from shared.object_store import ObjectStore

    settings = settings_of(common.data)
    (database, project_id), store = connect_to_project(settings, common.project), ObjectStore(settings)
    # Reading and rendering takes minutes before the first image is stored.
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

        def also(session: "Session", dataset_id: UUID) -> None:
            record(session, action="dataset.import", subject={"dataset_id": dataset_id}, actor=CLI)

        imported = import_here(settings, database, store, project_id, name, source, show_progress, also)
    counted = ("image_count", "box_count", "failure_count", "summary")
    described = {"id": imported.dataset_id} | {key: imported.values[key] for key in counted}
    print_made(name, described, is_new=imported.is_new)


def _choose(kind: type[Chosen], **choices: Any) -> Chosen:
    """Build a model from options; raises `typer.BadParameter`."""
    try:
        return kind(**choices)
    except ValidationError as exc:
        raise typer.BadParameter(explain(exc)) from exc


def _progress() -> Progress:
    columns: list[Any] = [TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn()]
    return progress_of(*columns, TimeRemainingColumn(), TextColumn("[red]{task.fields[failed]}"))
