"""Datasets of DICOM and PNG files, by the command line and through the API, on real servers."""

import csv
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from uuid import UUID

import PIL.Image
import pytest
import sqlalchemy as sa
from pycocotools.coco import COCO

from shared.database import Database
from shared.errors import NotFound, NotReady, ObjectMissing
from shared.imaging.rendition import make_rendition
from shared.object_store import ObjectStore, dataset_key, rendition_key, result_key
from shared.settings import Settings
from shared.tables import Dataset, Rendition
from shared.training import datasets
from shared.training.dataset_source import CocoSource, Consensus, SplitPlan, VinBigDataSource, VocSource, YoloSource
from shared.vocabulary.states import TaskState
from tests.integration.cli.test_commands import FAILED, USAGE, Command
from tests.integration.conftest import Api, Keys
from tests.integration.rows import home, home_of
from tests.integration.trainers import trainer, wait_for_task
from tests.requirements import REPOSITORY
from tests.synthetic_dicom import make_dicom, make_image
from tests.vinbigdata import COLUMNS
from tests.waiting import wait_for
from trainer.datasets.annotations import MalformedAnnotations, pseudonym
from trainer.datasets.dataset import parse
from trainer.datasets.importing import Imported, import_here
from trainer.datasets.making import NothingToImport, UnreadablePlace, open_stored

HALVES = SplitPlan(train=0.5, val=0.5, test=0)


def quiet(what: str, done: int, total: int, failed: int) -> None:
    """Nobody watches."""


def dicom_of(number: int, **elements: object) -> bytes:
    """An image that no other number makes; two numbers that follow each other are of one patient."""
    return make_dicom(make_image(96 + number, 80), bits=12, PatientID=f"Jane Doe {number // 2}", **elements)


def png_of(number: int) -> bytes:
    buffer = BytesIO()
    PIL.Image.fromarray((make_image(96 + number, 80) >> 4).astype("uint8")).save(buffer, "PNG")
    return buffer.getvalue()


def write_table(path: Path, rows: Sequence[tuple[object, ...]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return path


def rows_of(image_id: str) -> list[tuple[object, ...]]:
    """Two readers nearly agree on a nodule, the third one calls the image normal."""
    return [
        (image_id, "Nodule/Mass", 8, "R1", 10.0, 10.0, 30.0, 30.0),
        (image_id, "Nodule/Mass", 8, "R2", 12.0, 10.0, 32.0, 30.0),
        (image_id, "No finding", 14, "R3", "", "", "", ""),
    ]


@pytest.fixture
def images(tmp_path: Path) -> VinBigDataSource:
    """Eight good images, two of each patient, and one of each kind that cannot be taken."""
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(8):
        (folder / f"image{number}.dicom").write_bytes(dicom_of(number))
    (folder / "report.dcm").write_bytes(make_dicom(make_image(), Rows=None, Columns=None))
    (folder / "broken.png").write_bytes(png_of(0)[:200])
    (folder / "text.jpg").write_text("no picture")
    (folder / "twin.png.dcm").write_bytes(dicom_of(0))
    (folder / "small.png").write_bytes(png_of(1))
    table = [row for number in range(6) for row in rows_of(f"image{number}")]
    table += [
        (f"image{number}", "No finding", 14, reader, "", "", "", "") for number in (6, 7) for reader in ("R1", "R2")
    ]
    for name in ("report", "broken", "text", "twin.png", "gone", "../films/image0.dicom"):
        table.append((name, "No finding", 14, "R1", "", "", "", ""))
    table.append(("small", "Cardiomegaly", 3, "R1", 500.0, 500.0, 900.0, 900.0))
    source = write_table(tmp_path / "train.csv", table)
    return VinBigDataSource(annotations=str(source), images=str(folder), splits=HALVES)


@pytest.fixture
def imported(images: VinBigDataSource, settings: Settings, database: Database, store: ObjectStore) -> Imported:
    """These images, as a dataset."""
    return import_here(settings, database, store, home_of(database), "films", images, quiet)


def document_of(imported: Imported, store: ObjectStore) -> bytes:
    digest = imported.values["digest"]
    return store.get(dataset_key(digest), sha256=digest)


def failures_of(values: dict[str, object], store: ObjectStore) -> dict[str, str]:
    """The codes of an import's failures, by file name."""
    sha256 = str(values["failures_sha256"])
    listed = store.get(result_key(sha256, "jsonl"), sha256=sha256).splitlines()
    return {failure["file_name"]: failure["code"] for failure in map(json.loads, listed)}


EXPECTED_FAILURES = {
    "../films/image0.dicom": "unsafe_file_name",
    "broken": "undecodable_pixel_data",
    "gone": "image_missing",
    "report": "not_an_image",
    "small": "size_mismatch",
    "text": "unsupported_file_type",
    "twin.png": "duplicate_image",
}


def test_every_image_is_in_the_dataset_or_among_the_failures(
    imported: Imported, database: Database, store: ObjectStore
) -> None:
    assert failures_of(imported.values, store) == EXPECTED_FAILURES
    with database.begin() as session:
        row = datasets.resolve(session, home(session), "films")
        assert row.id == imported.dataset_id
        assert (row.state, row.image_count, row.box_count, row.failure_count) == ("succeeded", 8, 6, 7)
        assert row.summary is not None
        assert sum(row.summary["failures"].values()) == 7
        assert sum(split["images"] for split in row.summary["human"].values()) == 8, "all have two readers or three"
    dataset = parse(document_of(imported, store))
    assert len(dataset.images) == 8
    # Both boxes of the nodule became one; the annotated size is the file's own.
    first = dataset.images[0]
    assert first.boxes_xyxy_px.tolist() == [[11, 10, 31, 30]]
    assert (first.height_px, first.width_px) == (96, 80)
    assert sum(len(image.boxes_xyxy_px) == 0 for image in dataset.images) == 2, "normal images are kept"


def test_training_sees_the_pixels_that_serving_sees(imported: Imported, store: ObjectStore, settings: Settings) -> None:
    for number, image in enumerate(parse(document_of(imported, store)).images):
        served = make_rendition(dicom_of(number), rendition_px=settings.rendition_px, max_image_pixels=10**6)
        assert store.get(rendition_key(image.rendition_sha256), sha256=image.rendition_sha256) == served.png


def test_no_patient_is_on_both_sides_and_none_is_named(imported: Imported, store: ObjectStore) -> None:
    document = document_of(imported, store)
    dataset = parse(document)
    sides = {image.group for image in dataset.of("train").images}, {image.group for image in dataset.of("val").images}
    assert sides[0] | sides[1] == {pseudonym(f"Jane Doe {patient}") for patient in range(4)}
    assert not sides[0] & sides[1]
    assert sides[0]
    assert sides[1]
    assert b"Jane" not in document


def test_patients_of_the_headers_count_only_if_asked_for(
    images: VinBigDataSource, settings: Settings, database: Database, store: ObjectStore
) -> None:
    without = images.model_copy(update={"patients_from_dicom": False})
    imported = import_here(settings, database, store, home_of(database), "films", without, quiet)
    assert all(image.patient is None for image in parse(document_of(imported, store)).images)


def test_the_same_again_is_the_same_dataset_and_a_change_a_new_version(
    images: VinBigDataSource, imported: Imported, settings: Settings, database: Database, store: ObjectStore
) -> None:
    again = import_here(settings, database, store, home_of(database), "films", images, quiet)
    assert (again.dataset_id, again.is_new) == (imported.dataset_id, False)
    with database.begin() as session:  # as an earlier version wrote it
        session.get_one(Dataset, imported.dataset_id).summary = {}
    import_here(settings, database, store, home_of(database), "films", images, quiet)
    with database.begin() as session:
        assert session.get_one(Dataset, imported.dataset_id).summary == imported.values["summary"]
    unfused = images.model_copy(update={"consensus": Consensus(method="none")})
    changed = import_here(settings, database, store, home_of(database), "films", unfused, quiet)
    assert changed.is_new
    assert changed.values["box_count"] == 12
    with database.begin() as session:
        assert datasets.resolve(session, home(session), "films").id == changed.dataset_id
        assert datasets.resolve(session, home(session), str(imported.dataset_id)).digest == imported.values["digest"]
    # What was first is the latest again only if it is made again, as a version of its own.
    third = import_here(settings, database, store, home_of(database), "films", images, quiet)
    assert third.is_new
    assert third.values["digest"] == imported.values["digest"]


def test_an_import_that_cannot_be_done_leaves_no_row(
    images: VinBigDataSource, settings: Settings, database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    nothing = images.model_copy(update={"images": str(tmp_path / "empty")})
    with pytest.raises(NothingToImport, match="14 image_missing, 1 unsafe_file_name"):
        import_here(settings, database, store, home_of(database), "films", nothing, quiet)
    gone = images.model_copy(update={"annotations": str(tmp_path / "nowhere.csv")})
    with pytest.raises(UnreadablePlace, match=r"nowhere\.csv: No such file"):
        import_here(settings, database, store, home_of(database), "films", gone, quiet)
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Dataset)) == 0
        with pytest.raises(NotFound):
            datasets.resolve(session, home(session), "films")


def test_an_import_that_was_killed_goes_on_where_it_was(
    environ: dict[str, str], carina: Command, database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    """What the killed one had rendered is taken away, so that rendering it again would show."""
    folder = tmp_path / "films"
    folder.mkdir()
    names = [f"image{number:03}" for number in range(80)]
    for number, name in enumerate(names):
        (folder / f"{name}.dcm").write_bytes(dicom_of(number))
    table = write_table(tmp_path / "train.csv", [row for name in names for row in rows_of(name)])
    command = ["dataset", "import", "vinbigdata", "--csv", str(table), "--images", str(folder), "--name", "films"]
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "PYTHONPATH": str(REPOSITORY)} | environ
    env |= {"CARINA_PREPARE_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-m", "deploy.cli", *command], cwd="/", env=env, stderr=-3) as process:
        wait_for(lambda: len(rendered(database)) >= 5 or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
    done = rendered(database)
    assert 5 <= len(done) < len(names), "it was killed half-way"
    with database.begin() as session, pytest.raises(NotFound):
        datasets.resolve(session, home(session), "films")
    for sha256 in done:
        store.delete(rendition_key(sha256))

    assert "80 images, 80 boxes" in carina(*command)
    made = rendered(database)
    assert len(made) == len(names)
    for sha256 in done:
        with pytest.raises(ObjectMissing):
            store.read(rendition_key(sha256))
    for sha256 in made - done:
        assert hashlib.sha256(store.read(rendition_key(sha256))).hexdigest() == sha256


def rendered(database: Database) -> set[str]:
    with database.begin() as session:
        return set(session.scalars(sa.select(Rendition.rendition_sha256)))


def test_the_command_line_shows_and_exports_a_dataset(
    local_operator: None, images: VinBigDataSource, carina: Command, tmp_path: Path
) -> None:
    given = ("--csv", images.annotations, "--images", images.images, "--val-share", "0.5", "--test-share", "0")
    said = carina("dataset", "import", "vinbigdata", *given)
    assert "8 images, 6 boxes" in said
    assert "failed: 1 duplicate_image" in said

    failed = json.loads(carina("dataset", "failures", "vinbigdata", "--json"))
    assert {failure["file_name"]: failure["code"] for failure in failed} == EXPECTED_FAILURES

    figure, document = tmp_path / "classes.png", tmp_path / "images.json"
    shown = carina("dataset", "show", "vinbigdata", "--figure", str(figure))
    assert "8 Nodule/Mass" in shown
    assert "The patient is known for 8 of 8 images." in shown
    with PIL.Image.open(figure) as picture:
        picture.verify()

    carina("dataset", "export", "vinbigdata", "--output", str(document))
    loaded = COCO(str(document))
    assert len(loaded.getImgIds()) == 8
    assert [category["name"] for category in loaded.loadCats(loaded.getCatIds())] == ["Cardiomegaly", "Nodule/Mass"]
    boxes = loaded.loadAnns(loaded.getAnnIds(catIds=[8]))
    assert [(box["bbox"], box["readers"]) for box in boxes] == 6 * [([11, 10, 20, 20], ["R1", "R2"])]
    again = ("--annotations", str(document), "--images", images.images, "--keep-splits")
    assert "images: 8 images, 6 boxes" in carina("dataset", "import", "coco", *again)


@pytest.mark.usefixtures("local_operator")
@pytest.mark.parametrize(("form", "places"), [("voc", "--annotations"), ("yolo", "--labels")])
def test_an_export_is_imported_again_as_the_same_dataset(
    images: VinBigDataSource, carina: Command, tmp_path: Path, form: str, places: str
) -> None:
    """YOLO states no reader, and takes every image of the folder; the patients come from the headers."""
    folder, good = tmp_path / form, tmp_path / "good"
    good.mkdir()
    for path in Path(images.images).glob("image*.dicom"):
        (good / path.name).write_bytes(path.read_bytes())
    carina("dataset", "import", "vinbigdata", "--csv", images.annotations, "--images", images.images)
    carina("dataset", "export", "vinbigdata", "--format", form, "--output", str(folder))
    carina("dataset", "export", "vinbigdata", "--format", form, "--output", str(folder), code=USAGE)
    again = ("dataset", "import", form, places, str(folder), "--images", str(good), "--keep-splits")
    said = carina(*again)
    assert f"{form}: 8 images, 6 boxes" in said
    assert "note " not in said
    first: dict[str, object] = {}
    second: dict[str, object] = {}
    for name, boxes in (("vinbigdata", first), (form, second)):
        carina("dataset", "export", name, "--output", str(tmp_path / "all.json"))
        document = json.loads((tmp_path / "all.json").read_text())
        assert [category["id"] for category in document["categories"]] == [3, 8]
        known = ("sha256", "patient", "split") + (("readers",) if form == "voc" else ())
        for image in document["images"]:
            own = [box["bbox"] for box in document["annotations"] if box["image_id"] == image["id"]]
            boxes[Path(image["file_name"]).stem] = ([image[key] for key in known], own)
    assert first == second


def test_label_files_are_read_from_the_bucket(database: Database, store: ObjectStore) -> None:
    files = {"data.yaml": b"names: [Edema]", "labels/val/a.txt": b"0 0.5 0.5 0.1 0.1", "images/val/a.png": png_of(0)}
    for name, content in files.items():
        store.put(f"ward/yolo/{name}", content)
    source = YoloSource(annotations="ward/yolo/", images="ward/yolo/")
    with open_stored(source, database, store, quiet) as material:
        (image,) = material.annotations.images
    assert (image.file_name, image.split, len(image.boxes)) == ("images/val/a.png", "val", 1)
    empty = VocSource(annotations="ward/nothing/", images="ward/yolo/")
    with pytest.raises(MalformedAnnotations, match="no XML files"), open_stored(empty, database, store, quiet):
        pass


def test_a_command_that_cannot_be_done_says_why(images: VinBigDataSource, carina: Command) -> None:
    places = ("--images", images.images)
    refused = carina("dataset", "import", "coco", "--annotations", images.annotations, *places, code=FAILED)
    assert "malformed_annotations: document: Invalid JSON" in refused
    wrong = ("--csv", images.annotations, "--val-share", "0.6", "--test-share", "0.6")
    said = carina("dataset", "import", "vinbigdata", *places, *wrong, code=USAGE)
    assert "must not add up to more than 1" in said


def test_fixed_splits_come_as_two_documents(
    shared_data: Path, settings: Settings, database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        document = json.loads((shared_data / "nih-rsna" / f"{split}.json").read_text())
        document["images"] = document["images"][:5]
        kept = {image["id"] for image in document["images"]}
        document["annotations"] = [box for box in document["annotations"] if box["image_id"] in kept]
        (tmp_path / f"{split}.json").write_text(json.dumps(document))
    source = CocoSource(
        annotations=str(tmp_path / "train.json"),
        val_annotations=str(tmp_path / "val.json"),
        images=str(shared_data / "nih-rsna" / "images"),
    )
    imported = import_here(settings, database, store, home_of(database), "nih", source, quiet)
    dataset = parse(document_of(imported, store))
    assert [len(dataset.of(split).images) for split in ("train", "val", "test")] == [5, 5, 0]
    assert imported.values["failure_count"] == 0
    assert not {image.patient for image in dataset.of("train").images} & {
        image.patient for image in dataset.of("val").images
    }


@pytest.fixture
def api(make_api: Callable[[Settings], Api], settings: Settings) -> Api:
    """The application, where the keys' project may import from a folder of the bucket."""
    return make_api(settings.model_copy(update={"import_buckets": f"ward:{settings.s3_bucket}/ward"}))


def test_an_import_through_the_api(
    api: Api,
    keys: Keys,
    environ: dict[str, str],
    settings: Settings,
    database: Database,
    store: ObjectStore,
) -> None:
    names = [f"image{number}" for number in range(4)]
    for number, name in enumerate(names):
        store.put(f"ward/images/deep/{name}.dcm", dicom_of(number))
    document = {
        "categories": [{"id": 8, "name": "Nodule/Mass"}],
        "images": [{"id": number, "file_name": f"{name}.dcm"} for number, name in enumerate([*names, "gone"])],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 8, "bbox": [70, 10, 20, 20]}],
    }
    store.put("ward/train.json", json.dumps(document).encode())
    api = api.as_(keys.admin)
    source = {
        "format": "coco",
        "annotations": f"s3://{settings.s3_bucket}/ward/train.json",
        "images": "ward/images",
        "splits": {"train": 0.5, "val": 0.5, "test": 0},
    }
    queued = api.post("/v1/datasets", {"name": "ward", "source": source})
    assert queued.status_code == 202
    dataset_id = queued.get_json()["id"]
    assert api.get(f"/v1/datasets/{dataset_id}/coco").get_json()["code"] == "not_ready"
    with database.begin() as session, pytest.raises(NotReady, match="queued"):
        datasets.resolve(session, home(session), "ward")

    with trainer(environ):
        wait_for_task(database, Dataset, UUID(dataset_id), lambda row: TaskState(row.state).is_final, settings)
    shown = api.get(f"/v1/datasets/{dataset_id}").get_json()
    assert (shown["state"], shown["code"], shown["image_count"], shown["failure_count"]) == ("succeeded", None, 4, 1)
    assert shown["progress"] == {"what": "rendering", "done": 5, "total": 5, "failed": 1}
    assert shown["summary"]["noted"] == {"box_cut_at_the_edge": 1}
    coco = api.get(f"/v1/datasets/{dataset_id}/coco")
    assert hashlib.sha256(coco.data).hexdigest() == shown["digest"]
    assert coco.get_json()["annotations"][0]["bbox"] == [70, 10, 10, 20]
    (failure,) = api.get(f"/v1/datasets/{dataset_id}/failures").get_json()["failures"]
    assert (failure["file_name"], failure["code"]) == ("gone.dcm", "image_missing")
    assert [row["id"] for row in api.get("/v1/datasets").get_json()["datasets"]] == [dataset_id]
    assert api.post(f"/v1/datasets/{dataset_id}/cancel").get_json()["code"] == "task_is_final"


def test_the_api_says_why_an_import_failed_and_cancels_one(
    api: Api, keys: Keys, environ: dict[str, str], settings: Settings, database: Database, store: ObjectStore
) -> None:
    api = api.as_(keys.train)
    store.put("ward/train.csv", b"no table")
    source = {"format": "vinbigdata", "annotations": "ward/train.csv", "images": "ward/images"}
    broken, waiting = (api.post("/v1/datasets", {"name": "ward", "source": source}).get_json()["id"] for _ in range(2))
    assert api.post(f"/v1/datasets/{waiting}/cancel").get_json()["state"] == "cancelled"
    gone = api.post("/v1/datasets", {"name": "ward", "source": source | {"annotations": "ward/no.csv"}}).get_json()[
        "id"
    ]
    with trainer(environ):
        row, other = (
            wait_for_task(database, Dataset, UUID(task_id), lambda row: TaskState(row.state).is_final, settings)
            for task_id in (broken, gone)
        )
    assert (other.state, other.code) == ("failed", "unreadable_place")
    assert (row.state, row.code) == ("failed", "malformed_annotations")
    assert row.reason is not None
    assert row.reason.startswith("Line 1: the heading lacks")
    with database.begin() as session, pytest.raises(NotReady):
        datasets.resolve(session, home(session), broken)


def test_the_api_imports_what_the_setting_gives_the_project_only(api: Api, keys: Keys) -> None:
    source = {"format": "vinbigdata", "annotations": "ward/train.csv", "images": "ward/images"}
    body = {"name": "ward", "source": source}
    assert api.as_(keys.train).post("/v1/datasets", body).status_code == 202
    for key, changes in (
        (keys.stranger, {}),
        (keys.train, {"annotations": "ward2/train.csv"}),
        (keys.train, {"images": "lab"}),
    ):
        refused = api.as_(key).post("/v1/datasets", body | {"source": source | changes})
        assert (refused.status_code, refused.get_json()["code"]) == (403, "bucket_not_allowed"), changes


@pytest.mark.parametrize("place", ["s3://elsewhere/images", "originals/ab", "/etc", "ward/../originals"])
def test_the_api_imports_from_nowhere_else(api: Api, keys: Keys, place: str) -> None:
    for names in (("annotations",), ("images",)):
        source = {"format": "vinbigdata", "annotations": "a.csv", "images": "films"} | dict.fromkeys(names, place)
        refused = api.as_(keys.train).post("/v1/datasets", {"name": "ward", "source": source})
        assert (refused.status_code, refused.get_json()["code"]) == (422, "invalid_request")
