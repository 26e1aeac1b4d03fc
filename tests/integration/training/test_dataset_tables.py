"""Tables and documents as they go around, imported beside images that are drawn for them: right boxes, or a reason."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from shared.database import Database
from shared.object_store import ObjectStore, dataset_key
from shared.settings import Settings
from shared.training.dataset_source import CocoSource, Consensus, SplitPlan, VinBigDataSource
from tests.integration.cli.test_commands import FAILED, Command
from tests.integration.rows import home_of
from tests.requirements import REPOSITORY
from trainer.datasets.annotations import ImplausibleBoxes, MalformedAnnotations
from trainer.datasets.dataset import Dataset, parse
from trainer.datasets.importing import import_here

HALVES = SplitPlan(train=0.5, val=0.5, test=0)
HEADING = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
IDS = [f"image{number}" for number in range(6)]
#: Two readers an image: a box and no finding.
ROWS = [f"{id_},Cardiomegaly,3,R1,{100 + n},200,400,500" for n, id_ in enumerate(IDS)]
ROWS += [f"{id_},No finding,14,R2,,,," for id_ in IDS]

Import = Callable[..., tuple[Dataset, dict[str, Any]]]


def draw(folder: Path, width_px: int, height_px: int, names: Sequence[str] = IDS) -> Path:
    """Draw an image for each name, no two of which are the same."""
    folder.mkdir()
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 255, (height_px, width_px), dtype=np.uint8)
        (folder / f"{name}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return folder


@pytest.fixture
def import_(settings: Settings, database: Database, store: ObjectStore, tmp_path: Path) -> Import:
    """Import a table's text or a document, and return the dataset and its summary."""

    def run(annotations: str | dict[str, Any], images: Path, **choices: Any) -> tuple[Dataset, dict[str, Any]]:
        path = tmp_path / "annotations"
        is_table = isinstance(annotations, str)
        path.write_text(annotations if isinstance(annotations, str) else json.dumps(annotations))
        kind = VinBigDataSource if is_table else CocoSource
        source = kind(annotations=str(path), images=str(images), splits=HALVES, **choices)
        made = import_here(settings, database, store, home_of(database), "films", source, lambda *_: None)
        return parse(store.read(dataset_key(made.values["digest"]))), made.values["summary"]

    return run


def table(*rows: str, heading: str = HEADING) -> str:
    return "\n".join([heading, *rows, ""])


def coco(*boxes: list[float], categories: tuple[str, ...] = ("Cardiomegaly",), **image: Any) -> dict[str, Any]:
    """A document with the boxes on the images in turn."""
    return {
        "images": [{"id": n, "file_name": f"{id_}.png", **image} for n, id_ in enumerate(IDS)],
        "annotations": [
            {"id": n, "image_id": n % len(IDS), "category_id": 0, "bbox": box} for n, box in enumerate(boxes)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(categories)],
    }


def test_boxes_of_a_resized_set_are_scaled_by_the_tables_own_size_columns(import_: Import, tmp_path: Path) -> None:
    rows = [f"{row},1024,2048" for row in ROWS]
    text = table(*rows, heading=f"{HEADING},width,height")
    dataset, summary = import_(text, draw(tmp_path / "films", 512, 512))
    assert dataset.images[0].boxes_xyxy_px.tolist() == [[50, 50, 200, 125]]
    assert (dataset.images[0].width_px, dataset.images[0].height_px) == (512, 512)
    assert summary["noted"] == {"boxes_scaled": 6}
    assert summary["failures"] == {}


def test_boxes_of_originals_beside_smaller_files_are_refused(import_: Import, tmp_path: Path) -> None:
    """The table does not say how large the originals are; most of its boxes are outside of the files."""
    with pytest.raises(ImplausibleBoxes, match=r"6 of 6 boxes lie outside their image \(line 2, line 3, line 4"):
        import_(table(*ROWS), draw(tmp_path / "films", 128, 128))


def test_ids_with_another_ending_than_the_files_are_found(import_: Import, tmp_path: Path) -> None:
    text = table(*ROWS).replace(",Card", ".dicom,Card").replace(",No f", ".dicom,No f")
    dataset, summary = import_(text, draw(tmp_path / "films", 640, 640))
    assert len(dataset.images) == 6
    assert summary["failures"] == {}


def test_a_table_without_readers_and_class_ids_is_taken(import_: Import, tmp_path: Path) -> None:
    rows = [
        "image0,Rib fracture,10,20,300,400",
        "image1,Cardiomegaly,10,20,300,400",
        "image1,Cardiomegaly,11,20,300,400",
    ]
    rows += [f"{id_},No finding,,,," for id_ in IDS[2:]]
    heading = "image_id,class_name,x_min,y_min,x_max,y_max"
    dataset, summary = import_(table(*rows, heading=heading), draw(tmp_path / "films", 640, 640))
    assert [category.id for category in dataset.categories] == [3, 22]
    # Nothing tells whether these are one finding of two readers.
    assert sum(len(image.boxes_xyxy_px) for image in dataset.images) == 3
    (note,) = summary["notes"]
    assert (note["code"], summary["noted"]) == ("readers_unknown", {})


def test_a_document_without_sizes_says_that_its_units_were_not_checked(import_: Import, tmp_path: Path) -> None:
    boxes = [[61.0 + n, 80.5, 120, 100] for n in range(6)]
    _, summary = import_(coco(*boxes), draw(tmp_path / "films", 320, 400))
    (note,) = summary["notes"]
    assert (note["code"], note["count"], note["first"]) == ("size_unknown", 6, ["image 0", "image 1", "image 2"])


def test_boxes_that_vanish_in_float32_are_in_no_dataset(import_: Import, tmp_path: Path) -> None:
    thin = [[208.80717549940147 + n, 100.0, 1.0e-6, 60.0] for n in range(6)]
    document = coco(*thin, *[[50.0, 50.0, 80.0, 90.0]] * 6, width=320, height=400)
    dataset, summary = import_(document, draw(tmp_path / "films", 320, 400))
    assert [image.boxes_xyxy_px.tolist() for image in dataset.images] == 6 * [[[50, 50, 130, 140]]]
    assert summary["noted"] == {"box_without_area": 6}


def test_the_command_line_says_which_rows_were_left_out(local_operator: None, carina: Command, tmp_path: Path) -> None:
    path, images = tmp_path / "train.csv", draw(tmp_path / "films", 600, 700)
    past, flat = "image0,Nodule/Mass,8,R1,550,650,640,720", "image0,Nodule/Mass,8,R1,50,50,50,90"
    path.write_text(table(*ROWS, past, flat))
    command = ("dataset", "import", "vinbigdata", "--csv", str(path), "--images", str(images), "--test-share", "0")
    said = carina(*command, "--val-share", "0.5")
    assert "6 images, 7 boxes" in said
    assert "note box_cut_at_the_edge: Boxes that extend beyond their image were cut at its edge: 1 (line 14)." in said
    assert "left out: 1 (line 15)." in said
    shown = json.loads(carina("dataset", "show", "vinbigdata", "--json"))["summary"]
    assert shown["noted"] == {"box_cut_at_the_edge": 1, "box_without_area": 1}
    assert "note box_without_area" in carina("dataset", "show", "vinbigdata")


def test_the_command_line_names_the_reason_of_a_refusal(carina: Command, tmp_path: Path) -> None:
    path, images = tmp_path / "train.csv", draw(tmp_path / "films", 600, 700)
    path.write_text(table(*(f"{id_},Cardiomegaly,3,R1,0.1,0.2,0.4,0.5" for id_ in IDS)))
    refused = carina("dataset", "import", "vinbigdata", "--csv", str(path), "--images", str(images), code=FAILED)
    assert "implausible_boxes: All 6 boxes lie between 0 and 1" in refused


CASES = REPOSITORY.parent / "shared" / "cases" / "annotations"


@pytest.fixture(scope="session")
def cases() -> Path:
    """The small tables and documents of public reports."""
    if not CASES.is_dir():
        pytest.skip("the case files are not at ../shared/cases")
    return CASES


@pytest.mark.parametrize(
    ("name", "size_px", "images", "boxes", "codes"),
    [
        ("vinbigdata_512px_with_original_width_height.csv", (512, 512), 12, 20, {"boxes_scaled"}),
        ("v22_box_past_edge.csv", (600, 700), 12, 21, {"box_cut_at_the_edge"}),
        ("v04_nan_text.csv", (600, 700), 12, 20, set()),
        ("v06_nofinding_0011.csv", (600, 700), 12, 20, set()),
        ("v13_zero_area_box.csv", (600, 700), 12, 20, {"box_without_area"}),
        ("v09_physionet_train.csv", (600, 700), 12, 20, set()),
        ("v10_physionet_test_consensus.csv", (600, 700), 12, 8, {"readers_unknown"}),
        ("v24_normals_only.csv", (600, 700), 12, 0, set()),
        ("coco_boxes_of_larger_image_no_wh.json", (320, 400), 12, 12, {"size_unknown", "area_contradicts"}),
        ("no_categories.json", (320, 400), 12, 0, set()),
        ("other_spelling.json", (320, 400), 12, 12, set()),
        ("split_word_unknown.json", (320, 400), 12, 12, set()),
        ("tiny_collapse.json", (320, 400), 12, 12, {"area_contradicts", "box_without_area"}),
    ],
)
def test_the_public_reports_cases(
    cases: Path,
    import_: Import,
    tmp_path: Path,
    name: str,
    size_px: tuple[int, int],
    images: int,
    boxes: int,
    codes: set[str],
) -> None:
    text = (cases / name).read_text()
    is_table = name.endswith(".csv")
    if is_table:
        names = sorted({line.split(",")[0] for line in text.splitlines()[1:]})
    else:
        names = [Path(image["file_name"]).stem for image in json.loads(text)["images"]]
    folder = draw(tmp_path / "films", *size_px, names=names)
    consensus = {"consensus": Consensus(method="none")} if is_table else {}
    dataset, summary = import_(text if is_table else json.loads(text), folder, **consensus)
    assert (len(dataset.images), sum(len(image.category_ids) for image in dataset.images)) == (images, boxes)
    assert {note["code"] for note in summary["notes"]} == codes
    assert summary["failures"] == {}


def test_the_public_reports_case_of_a_name_with_nul(cases: Path, import_: Import, tmp_path: Path) -> None:
    document = json.loads((cases / "nul_in_category_name.json").read_text())
    with pytest.raises(MalformedAnnotations, match="control characters"):
        import_(document, draw(tmp_path / "films", 320, 400))
