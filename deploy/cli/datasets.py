"""`carina dataset`: list, show, export, failures; `import` is next door."""

import json
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.markup import escape

from deploy.cli.application import Application, Part
from deploy.cli.console import is_json, out, print_json, show_result
from deploy.cli.environment import Data, settings_of
from deploy.cli.projects import InProject, open_project
from deploy.cli.tables import Column, Table
from shared.access.keys import FIRST_PROJECT
from shared.errors import NotReady
from shared.object_store import ObjectStore, dataset_key, result_key
from shared.tables import Dataset
from shared.training import datasets

app = Application(help="What models are trained and evaluated on.", no_args_is_help=True)
for name, attribute in {"import": "imports", "phantoms": "phantoms", "reviews": "reviews"}.items():
    app.parts[name] = Part(f"deploy.cli.dataset_imports:{attribute}")
#: In the order in which they are shown; PostgreSQL keeps none of a JSON object's keys.
_SPLITS, _SIZES = ("train", "val", "test"), ("small", "medium", "large")

NameOrId = Annotated[str, typer.Argument(help="A name, which is its latest version, or an id.")]


@app.command("list")
def list_(
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """List all datasets, newest first."""
    database, _ = open_project(settings_of(data), project)
    with database.begin() as session:
        rows = session.scalars(sa.select(Dataset).order_by(Dataset.id.desc())).all()
        if is_json():
            print_json([_describe(row) for row in rows])
            return
        table = Table(Column("id", no_wrap=True), "name", "state", "images", "boxes", "failures", "digest", "made")
        for row in rows:
            counts = ("" if count is None else f"{count:,}" for count in _counts(row))
            made = f"{row.created_at:%Y-%m-%d %H:%M}"
            table.add_row(str(row.id), escape(row.name), escape(_state(row)), *counts, (row.digest or "")[:12], made)
    out.print(table)


@app.command()
def show(
    dataset: NameOrId,
    figure: Annotated[Path | None, typer.Option(help="Draw classes and places into this .png or .svg file.")] = None,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """Show what is in a dataset, by split, class, reader and size."""
    settings = settings_of(data)
    database, project_id = open_project(settings, project)
    with database.begin() as session:
        row = datasets.find(session, project_id, dataset)
        session.expunge(row)
    if figure is not None:
        from trainer.datasets.figure import draw_figure, format_of

        format_ = format_of(figure.name)
        figure.write_bytes(draw_figure(_read_document(ObjectStore(settings), row), format_))
    if is_json():
        print_json(_describe(row) | {"source": row.source, "summary": row.summary})
        return
    out.print(escape(f"{row.id} {row.name}: {_state(row)}"), soft_wrap=True)
    if row.summary is not None:
        print_summary(row.summary)
        out.print(f"digest {row.digest}, renditions of version {row.rendition_version}", soft_wrap=True)
    if figure is not None:
        out.print(str(figure), soft_wrap=True)


@app.command()
def export(
    dataset: NameOrId,
    output: Annotated[Path, typer.Option(help="Write the COCO document into this file.", dir_okay=False)],
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """Write a dataset as a COCO document, which pycocotools loads."""
    settings = settings_of(data)
    database, project_id = open_project(settings, project)
    with database.begin() as session:
        row = datasets.resolve(session, project_id, dataset)
        session.expunge(row)
    document = _read_document(ObjectStore(settings), row)
    output.write_bytes(document)
    described = {"id": row.id, "file": str(output), "image_count": row.image_count, "box_count": row.box_count}
    show_result(described, f"{output}: {row.image_count:,} images, {row.box_count:,} boxes")


@app.command()
def failures(
    dataset: NameOrId,
    project: InProject = FIRST_PROJECT,
    data: Data = None,
) -> None:
    """List the images that could not be taken into a dataset, and why."""
    settings = settings_of(data)
    database, project_id = open_project(settings, project)
    with database.begin() as session:
        sha256 = datasets.resolve(session, project_id, dataset).failures_sha256
    if sha256 is None:
        raise NotReady("The list of failures was removed, because it named an image that was erased.")
    listed = ObjectStore(settings).get(result_key(sha256, "jsonl"), sha256=sha256)
    found = [json.loads(line) for line in listed.splitlines()]
    if is_json():
        print_json(found)
        return
    if not found:
        out.print("Every image was taken.")
        return
    table = Table("image", "code", "reason")
    for failure in found:
        table.add_row(escape(failure["file_name"]), failure["code"], escape(failure["reason"]))
    out.print(table)


def print_summary(summary: dict[str, Any]) -> None:
    """Print what is in a dataset, and what was left out."""
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
    for what in ("noted", "failures"):
        if summary[what]:
            counted = ", ".join(f"{count:,} {why}" for why, count in sorted(summary[what].items()))
            out.print(f"{'left out or changed' if what == 'noted' else 'failed'}: {counted}", soft_wrap=True)
    for note in summary.get("notes", ()):
        out.print(f"note {note['code']}: {note['message']}", soft_wrap=True, markup=False)


def _table(what: str, *numbers: str) -> Table:
    return Table(what, *(Column(number, justify="right") for number in numbers))


def _add(table: Table, what: str, *numbers: int) -> None:
    table.add_row(what, *(f"{number:,}" for number in numbers))


def _read_document(store: ObjectStore, row: Dataset) -> bytes:
    if row.digest is None:
        raise NotReady(f"Dataset {row.id} is {row.state}: there is no document.")
    return store.get(dataset_key(row.digest), sha256=row.digest)


def _describe(row: Dataset) -> dict[str, Any]:
    columns = (
        "id",
        "name",
        "state",
        "digest",
        "rendition_version",
        "progress",
        "code",
        "reason",
        "erased_count",
        "created_at",
    )
    counts = zip(("image_count", "box_count", "failure_count"), _counts(row), strict=True)
    return {name: getattr(row, name) for name in columns} | dict(counts)


def _counts(row: Dataset) -> tuple[int | None, int | None, int | None]:
    return row.image_count, row.box_count, row.failure_count


def _state(row: Dataset) -> str:
    why = f" ({row.code}: {row.reason})" if row.code else ""
    done = f" {row.progress['done']:,} of {row.progress['total']:,}" if row.state == "running" and row.progress else ""
    erased = f" ({row.erased_count:,} images were erased)" if row.erased_count else ""
    return f"{row.state}{done}{why}{erased}"
