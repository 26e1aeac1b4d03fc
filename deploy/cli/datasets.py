"""`carina dataset`: phantoms, reviews, list, show, export, failures; `import` is in `dataset_imports`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.markup import escape

from api.contract.datasets import DatasetAnswer
from deploy.cli.application import Application, Part
from deploy.cli.clients import connect
from deploy.cli.console import explain, is_json, out, print_json, show_result, tell
from deploy.cli.environment import Data
from deploy.cli.following import follow, may_leave
from deploy.cli.tables import Column, Table, print_list
from shared.training.dataset_source import DatasetRequest, PhantomsSource, ReviewsSource, SplitPlan

app = Application(help="What models are trained and evaluated on.", no_args_is_help=True)
app.parts["import"] = Part("deploy.cli.dataset_imports:imports")
#: In the order in which they are shown; PostgreSQL keeps none of a JSON object's keys.
_SPLITS, _SIZES = ("train", "val", "test"), ("small", "medium", "large")
_PHANTOMS, _REVIEWS = PhantomsSource(), ReviewsSource()

NameOrId = Annotated[str, typer.Argument(help="A name, which is its latest version, or an id.")]
NewName = Annotated[str, typer.Option(help="Name of the dataset; a known name makes a new version.")]
ValShare = Annotated[float, typer.Option(help="Share of the patients to evaluate on while training.")]
TestShare = Annotated[float, typer.Option(help="Share of the patients to keep for the end.")]
Seed = Annotated[int, typer.Option(help="Seed of the assignment of patients to splits.")]
FromDicom = Annotated[
    bool, typer.Option(help="Tell patients apart by DICOM's PatientID (a pseudonym is stored, never the id).")
]
Detach = Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")]


@app.command()
def phantoms(
    name: NewName = "phantoms",
    films: Annotated[int, typer.Option(help="How many images to draw.")] = _PHANTOMS.films,
    seed: Annotated[int, typer.Option(help="Images of another seed are other images.")] = _PHANTOMS.seed,
    natural: Annotated[
        bool, typer.Option("--natural", help="Draw classes as often as real radiographs show them.")
    ] = False,
    negative_share: Annotated[float, typer.Option(help="Share of the images that are black for white.")] = 0,
    hard: Annotated[
        bool, typer.Option("--hard", help="Draw faint lesions that overlap, with the boxes of three simulated readers.")
    ] = False,
    truth: Annotated[
        bool, typer.Option("--truth", help="With --hard: the true lesions instead of the boxes of the readers.")
    ] = False,
    val_share: ValShare = _PHANTOMS.splits.val,
    test_share: TestShare = _PHANTOMS.splits.test,
    detach: Detach = False,
    data: Data = None,
) -> None:
    """Have a trainer make a dataset of synthetic images with known lesions of 14 classes.

    Ctrl-C only stops watching.
    """
    chosen = {"films": films, "seed": seed, "balanced": not natural, "negative_share": negative_share}
    chosen |= {"hard": hard, "truth": truth}
    splits = plan_splits(val_share, test_share, seed)
    _make(name, {"format": "phantoms", "splits": splits, **chosen}, data, detach=detach)


@app.command()
def reviews(
    name: NewName = "reviews",
    val_share: ValShare = _REVIEWS.splits.val,
    test_share: TestShare = _REVIEWS.splits.test,
    seed: Seed = _REVIEWS.splits.seed,
    patients_from_dicom: FromDicom = True,
    detach: Detach = False,
    data: Data = None,
) -> None:
    """Have a trainer make a dataset of the images whose review is done, with the findings that readers accepted.

    Ctrl-C only stops watching.
    """
    splits = plan_splits(val_share, test_share, seed)
    source = {"format": "reviews", "patients_from_dicom": patients_from_dicom, "splits": splits}
    _make(name, source, data, detach=detach)


@app.command("list")
def list_(data: Data = None) -> None:
    """List all datasets, newest first."""
    with connect(data) as client:
        found = list(client.datasets())
    rows = [
        (
            each.id,
            each.name,
            _state(each),
            *(
                "" if count is None else f"{count:,}"
                for count in (each.image_count, each.box_count, each.failure_count)
            ),
            (each.digest or "")[:12],
            f"{each.created_at:%Y-%m-%d %H:%M}",
        )
        for each in found
    ]
    columns = (Column("id", no_wrap=True), "name", "state", "images", "boxes", "failures", "digest", "made")
    print_list(found, columns, rows)


@app.command()
def show(
    dataset: NameOrId,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw classes and places into this .png or .svg file, which needs the extra `trainer`."),
    ] = None,
    data: Data = None,
) -> None:
    """Show the content of a dataset by split, class, reader and size."""
    with connect(data) as client:
        found = client.find_dataset(dataset)
        if figure is not None:
            from trainer.datasets.figure import draw_figure, format_of

            format_ = format_of(figure.name)
            figure.write_bytes(draw_figure(client.dataset_document(found.id), format_))
    if is_json():
        print_json(found)
        return
    out.print(escape(f"{found.id} {found.name}: {_state(found)}"), soft_wrap=True)
    if found.summary is not None:
        print_summary(found.summary)
        out.print(f"digest {found.digest}, renditions of version {found.rendition_version}", soft_wrap=True)
    if figure is not None:
        out.print(str(figure), soft_wrap=True)


@app.command()
def export(
    dataset: NameOrId,
    output: Annotated[Path, typer.Option(help="Write the COCO document to this file, other formats to this folder.")],
    form: Annotated[
        Literal["coco", "yolo", "voc"], typer.Option("--format", help="`yolo` and `voc` need the extra `trainer`.")
    ] = "coco",
    data: Data = None,
) -> None:
    """Write the annotations of a dataset: as a COCO document, or as files of YOLO or Pascal VOC."""
    if output.is_dir() and (form == "coco" or any(output.iterdir())):
        raise typer.BadParameter("--output is a folder with files: name a new file for coco, else an empty folder.")
    with connect(data) as client:
        found = client.find_dataset(dataset)
        document = client.dataset_document(found.id)
    if form == "coco":
        output.write_bytes(document)
    else:
        from trainer.datasets.export import FORMATS

        for name, content in FORMATS[form](document):
            path = output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    described = {
        "id": found.id,
        "file": str(output),
        "image_count": found.image_count,
        "box_count": found.box_count,
    }
    show_result(described, f"{output}: {found.image_count:,} images, {found.box_count:,} boxes")


@app.command()
def failures(dataset: NameOrId, data: Data = None) -> None:
    """List the images that could not be taken into a dataset, and why."""
    with connect(data) as client:
        found = client.dataset_failures(client.find_dataset(dataset).id)
    if not found and not is_json():
        out.print("Every image was taken.")
        return
    rows = [(failure.file_name, failure.code, failure.reason) for failure in found]
    print_list(found, ["image", "code", "reason"], rows)


def plan_splits(val_share: float, test_share: float, seed: int, *, keep: bool = False) -> SplitPlan:
    """Return how patients are split; raises `typer.BadParameter`."""
    train_share = round(1 - val_share - test_share, 9)
    if train_share < 0:
        raise typer.BadParameter("The shares of val and test must not add up to more than 1.")
    try:
        return SplitPlan(train=train_share, val=val_share, test=test_share, seed=seed, keep=keep)
    except ValidationError as exc:
        raise typer.BadParameter(explain(exc)) from exc


def print_made(name: str, described: dict[str, Any], *, is_new: bool = True) -> None:
    """Print a dataset that was made: `id`, `image_count`, `box_count`, `failure_count` and `summary`."""
    if is_json():
        tell({"id": described["id"], "name": name, "is_new": is_new} | described)
        return
    print_summary(described["summary"])
    same = "" if is_new else ", the same as the latest version: no new version was made"
    counts = f"{described['image_count']:,} images, {described['box_count']:,} boxes"
    out.print(f"{described['id']} {name}: {counts}{same}", soft_wrap=True, markup=False)
    if described["failure_count"]:
        out.print(f"`carina dataset failures {described['id']}` lists the images that are missing.", soft_wrap=True)


def _make(name: str, source: dict[str, Any], data: Path | None, *, detach: bool) -> None:
    try:
        request = DatasetRequest.model_validate({"name": name, "source": source})
    except ValidationError as exc:
        raise typer.BadParameter(explain(exc)) from exc
    with connect(data) as client:
        asked = client.import_dataset(request)
        if detach:
            show_result(asked, f"import {asked.id} of {name}")
            return
        with may_leave(f"`carina dataset show {asked.id}`"):
            made = follow(client, asked, lambda: client.dataset(asked.id))
    counted = {"id", "image_count", "box_count", "failure_count", "summary"}
    print_made(name, made.model_dump(mode="json", include=counted))


def print_summary(summary: dict[str, Any]) -> None:
    """Print the content of a dataset and the entries that were left out."""
    splits = _table("split", "images", "without findings", "patients", "boxes")
    for split in _SPLITS:
        counts = summary["splits"][split]
        _add(splits, split, *(counts[what] for what in ("images", "without_findings", "patients", "boxes")))
    classes = _table("boxes of", *_SPLITS, *_SIZES, "images")
    for class_ in summary["classes"]:
        boxes = (class_["boxes"][split] for split in _SPLITS)
        sizes = (class_["sizes"][size] for size in _SIZES)
        _add(classes, escape(f"{class_['id']} {class_['name']}"), *boxes, *sizes, class_["images"])
    out.print(splits, classes)
    images = sum(summary["splits"][split]["images"] for split in _SPLITS)
    out.print(f"The patient is known for {summary['images_of_known_patients']:,} of {images:,} images.")
    if summary["readers"]:
        readers = _table("reader", "images read", "boxes")
        for reader in summary["readers"]:
            _add(readers, escape(reader["reader"]), reader["images"], reader["boxes"])
        out.print(readers)
    if summary.get("reader_model"):
        _print_reader_model(summary)
    for what in ("noted", "failures"):
        if summary[what]:
            counted = ", ".join(f"{count:,} {why}" for why, count in sorted(summary[what].items()))
            out.print(f"{'left out or changed' if what == 'noted' else 'failed'}: {counted}", soft_wrap=True)
    for note in summary.get("notes", ()):
        out.print(f"note {note['code']}: {note['message']}", soft_wrap=True, markup=False)


def _print_reader_model(summary: dict[str, Any]) -> None:
    """Print for each class by how many readers its boxes were drawn, and the fitted figures of the readers."""
    counts = sorted({count for class_ in summary["classes"] for count in class_["drawn_by"]}, key=int)
    drawn = Table(
        "boxes drawn by",
        *(Column(f"{count} reader{'s' * (count != '1')}", justify="right") for count in counts),
        Column("a reader finds", justify="right"),
        Column("true boxes", justify="right"),
        Column("false boxes per reader and image", justify="right"),
    )
    for class_ in summary["classes"]:
        if figures := summary["reader_model"].get(str(class_["id"])):
            drawn.add_row(
                escape(class_["name"]),
                *(f"{class_['drawn_by'].get(count, 0):,}" for count in counts),
                f"{figures['detection']:.0%}",
                f"{figures['true_share']:.0%}",
                f"{figures['false_boxes_per_reader']:.3f}",
            )
    out.print(drawn)


def _table(what: str, *numbers: str) -> Table:
    return Table(what, *(Column(number, justify="right") for number in numbers))


def _add(table: Table, what: str, *numbers: int) -> None:
    table.add_row(what, *(f"{number:,}" for number in numbers))


def _state(row: DatasetAnswer) -> str:
    why = f" ({row.code}: {row.reason})" if row.code else ""
    done = f" {row.progress['done']:,} of {row.progress['total']:,}" if row.state == "running" and row.progress else ""
    erased = f" ({row.erased_count:,} images were erased)" if row.erased_count else ""
    return f"{row.state}{done}{why}{erased}"
