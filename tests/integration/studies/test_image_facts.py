"""What is known of an image beside its pixels, from its header by way of the workers to every answer; and its boxes."""

import csv
import io
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from uuid import UUID

import numpy as np
import PIL.Image
import pytest
import sqlalchemy as sa
import torch
from pycocotools.coco import COCO
from torch import Tensor

from api.client import Carina
from shared.access.keys import create_key
from shared.database import Database
from shared.detector.card import ModelCard
from shared.detector.runtime import Detector
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import Image, SubmissionFile
from shared.vocabulary.states import Scope
from tests.integration.conftest import Api, Keys, Server
from tests.integration.submitting import Desk
from tests.integration.workshop import Workshop, dicom
from tests.planted_marks import WINDOW, Mark, measure
from tests.synthetic_dicom import make_dicom

#: Sizes of originals, and the mm of their pixels, down and across.
IMAGES = [
    (101, 97, (0.2, 0.2)),
    (211, 169, (0.3, 0.25)),
    (401, 399, (0.1, 0.2)),
    (757, 1009, (0.143, 0.143)),
    (331, 1601, (0.2, 0.1)),
]
#: As a header says them, and as they are answered.
SPACING = {"row_mm": 0.2, "column_mm": 0.1, "source": "detector"}
FLAGS = ["lateral_view", "clipped_exposure"]


def find_the_mark(card: ModelCard, canvases: Tensor, _content: Tensor) -> Tensor:
    """Find a bright mark to a fraction of a pixel, in the place of the network; all around it is as ever."""
    rows = torch.zeros((len(canvases), card.max_detections, 6))
    for row, canvas in zip(rows, canvases.numpy(), strict=True):
        if canvas.any():
            row[0] = torch.tensor([*measure(canvas), 0.9, 1])
    return rows


def _replace_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detector, "_normalise", lambda _, canvases: canvases)
    monkeypatch.setattr(Detector, "_run", lambda self, canvases, content: find_the_mark(self.card, canvases, content))


def image_of(workshop: Workshop, job_id: UUID) -> Image:
    with workshop.database.begin() as session:
        image = session.get_one(Image, workshop.job(job_id).image_id)
        session.expunge(image)
        return image


def work(workshop: Workshop, **changed: object) -> None:
    """Prepare and detect all that waits."""
    with workshop.preparing(**changed) as prepare:
        prepare.run()
    with workshop.detecting(**changed) as detect:
        detect.run()


@pytest.mark.usefixtures("tiny_model_id")
@pytest.mark.parametrize("rendition_px", [100, 300])
def test_boxes_come_back_to_half_a_pixel_of_the_original(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, rendition_px: int
) -> None:
    """From the original to the rendition, to the canvas of 128 pixels (larger, then smaller) and back.

    Or to a tenth of a pixel of the rendition where that is more: enlarging onto the canvas blurs by as much.
    """
    _replace_network(monkeypatch)
    marks, files = [], []
    for height_px, width_px, spacing in IMAGES:
        for top, left in ((0.0, 0.0), (0.31, 0.47), (0.6, 0.6)):
            y, x = int(top * height_px), int(left * width_px)
            marks.append(Mark(x, y, x + int(0.4 * width_px), y + int(0.4 * height_px)))
            plain_image = marks[-1].on(height_px, width_px)
            files.append(make_dicom(plain_image, bits=12, PixelSpacing=list(spacing), **WINDOW))
    jobs = workshop.queue(*files)
    work(workshop, rendition_px=rendition_px)
    for job_id, mark in zip(jobs, marks, strict=True):
        (found,) = workshop.found(job_id)
        box = np.array([found.x_min_px, found.y_min_px, found.x_max_px, found.y_max_px])
        image = image_of(workshop, job_id)
        scale = np.array([image.width_px / image.rendition_width_px, image.height_px / image.rendition_height_px] * 2)
        assert (np.abs(box - mark.box_xyxy_px) < np.maximum(0.5, scale / 10)).all()


@pytest.mark.usefixtures("tiny_model_id")
def test_boxes_on_a_turned_jpeg_are_those_of_the_picture_that_is_shown(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _replace_network(monkeypatch)
    mark = Mark(40, 104, 120, 168)  # on the grid of JPEG's blocks, which then do not blur it
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    file = BytesIO()
    PIL.Image.fromarray((mark.on(403, 301) >> 4).astype(np.uint8)).save(file, "JPEG", quality=98, exif=exif)
    (job_id,) = workshop.queue(file.getvalue())
    work(workshop, rendition_px=200)
    (found,) = workshop.found(job_id)
    box = np.array([found.x_min_px, found.y_min_px, found.x_max_px, found.y_max_px])
    assert np.abs(box - (403 - 168, 40, 403 - 104, 120)).max() < 0.5


@pytest.mark.usefixtures("tiny_model_id")
def test_findings_are_told_in_millimetres_where_the_file_says_what_a_pixel_is(api: Api, workshop: Workshop) -> None:
    plain_image = dicom(1)
    spaced = make_dicom(Mark(20, 30, 50, 80).on(160, 120), bits=12, ImagerPixelSpacing=[0.2, 0.1], **WINDOW)
    sent = api.send(("a", spaced), ("b", plain_image)).get_json()["files"]
    paths = [f"/v1/studies/{file['study_id']}" for file in sent]
    (early,) = api.get(f"{paths[0]}/findings").get_json()["images"]
    names = ("pixel_spacing", "flags", "grey_levels", "chest_scores")
    assert [early[name] for name in names] == [None] * 4
    assert api.get(f"/v1/jobs/{sent[0]['job_id']}").get_json()["flags"] is None
    work(workshop)

    (image,) = api.get(f"{paths[0]}/findings").get_json()["images"]
    assert image["pixel_spacing"] == SPACING
    assert len(image["findings"]) == 3
    for finding in image["findings"]:
        expected = np.array(finding["box_xyxy_px"]) * (0.1, 0.2, 0.1, 0.2)
        assert finding["box_xyxy_mm"] == pytest.approx(list(expected))
    assert image["grey_levels"] != []
    assert isinstance(image["flags"], list)
    (of_study,) = api.get(paths[0]).get_json()["images"]
    assert [of_study[name] for name in names] == [image[name] for name in names]
    assert of_study["jobs"][0]["flags"] == image["flags"]

    (plain,) = api.get(f"{paths[1]}/findings").get_json()["images"]
    assert plain["pixel_spacing"] is None
    assert [finding["box_xyxy_mm"] for finding in plain["findings"]] == [None] * 3


@pytest.mark.usefixtures("tiny_model_id")
def test_an_overlay_names_flags_below_the_picture_and_changes_no_pixel_of_it(api: Api, workshop: Workshop) -> None:
    (sent,) = api.send(("a", dicom(1))).get_json()["files"]
    work(workshop)

    def overlay(*flags: str) -> np.ndarray:
        with workshop.database.begin() as session:
            session.execute(sa.update(Image).values(flags=list(flags)))
        response = api.get(f"/v1/images/{sent['image_id']}/overlay.png", min_score=0)
        with PIL.Image.open(BytesIO(response.data)) as picture:
            return np.asarray(picture)

    plain, flagged = overlay(), overlay("suspected_inversion")
    height_px = image_of(workshop, UUID(sent["job_id"])).rendition_height_px
    assert np.array_equal(plain[:height_px], flagged[:height_px])
    assert plain[height_px:].tobytes() != flagged[height_px:].tobytes()
    assert len(flagged) > len(plain), "one line more"


@pytest.mark.usefixtures("tiny_model_id")
def test_the_command_line_tells_sizes_and_flags(
    carina: Callable[..., str],
    server: Server,
    keys: Keys,
    database: Database,
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CARINA_API_URL", server.url)
    monkeypatch.setenv("CARINA_API_KEY", keys.both)
    plain_image = make_dicom(Mark(20, 30, 50, 80).on(160, 120), bits=12, ImagerPixelSpacing=[0.2, 0.1], **WINDOW)
    (tmp_path / "image.dcm").write_bytes(plain_image)
    with Carina(server.url, keys.both) as client:
        (sent,) = client.submit([tmp_path / "image.dcm"])
    work(workshop)
    with database.begin() as session:
        session.execute(sa.update(Image).values(flags=FLAGS))

    shown = carina("findings", str(sent.study_id), "--min-score", "0")
    assert "at the detector" in shown
    for form in ("csv", "coco"):
        target = str(tmp_path / f"findings.{form}")
        carina("findings", str(sent.study_id), "--format", form, "--output", target, "--min-score", "0")
    with (tmp_path / "findings.csv").open() as rows:
        found = list(csv.DictReader(rows))
    assert len(found) == 3
    for row in found:
        for side, mm in (("x", 0.1), ("y", 0.2)):
            for end in ("min", "max"):
                assert float(row[f"{side}_{end}_mm"]) == pytest.approx(mm * float(row[f"{side}_{end}_px"]))
        spacing = (row["row_spacing_mm"], row["column_spacing_mm"], row["spacing_source"])
        assert spacing == ("0.2", "0.1", "detector")
        assert row["flags"] == "lateral_view clipped_exposure"
        width, height = (float(row[f"{side}_max_mm"]) - float(row[f"{side}_min_mm"]) for side in ("x", "y"))
        assert f"{width:.0f} × {height:.0f}" in shown
    assert shown.count("lateral_view") >= 3
    coco = COCO(str(tmp_path / "findings.coco"))
    (image,) = coco.imgs.values()
    assert (image["pixel_spacing"], image["flags"]) == (SPACING, FLAGS)
    status = carina("status", str(sent.job_id))
    assert "lateral_view" in status
    assert "clipped_exposure" in status


def test_a_manifest_tells_flags_once_they_are_known(
    api: Api, settings: Settings, database: Database, hints: Hints
) -> None:
    desk = Desk(settings, database, hints)
    with database.begin() as session:
        of_the_desk = api.as_(create_key(session, project_name="desk", name="desk", scopes=[Scope.READ]))
    submission_id = desk.submit(dicom(1), dicom(2), b"no image")
    desk.receive()
    with database.begin() as session:
        first = sa.select(SubmissionFile.image_id).where(SubmissionFile.number == 0).scalar_subquery()
        session.execute(sa.update(Image).where(Image.id == first).values(flags=FLAGS))
    path = f"/v1/submissions/{submission_id}/manifest"
    rows = of_the_desk.get(path).get_json()["files"]
    assert [row["flags"] for row in rows] == [FLAGS, None, None]
    lines = of_the_desk.get(path, format="jsonl").text.splitlines()
    assert [json.loads(line)["flags"] for line in lines] == [FLAGS, None, None]
    table = csv.DictReader(io.StringIO(of_the_desk.get(path, format="csv").text))
    assert [row["flags"] for row in table] == ["lateral_view clipped_exposure", "", ""]
