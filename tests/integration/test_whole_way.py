"""From the uploaded file to the findings: the API, prepare and detect of one process on real servers."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.detector.card import Category, ModelCard
from shared.detector.fitting import fit_to_canvas
from shared.detector.weights import decode_weights, import_checkpoint, load_model
from shared.imaging.rendition import make_rendition, read_rendition
from shared.phantoms import encode_dicom, make_phantom
from tests.expected_outcomes import EXPECTED_OUTCOMES
from tests.integration.conftest import Api
from tests.integration.workshop import Workshop
from tests.synthetic_dicom import make_dicom, make_image
from tests.tiny_model import make_tiny_model


def work(workshop: Workshop, **changed: object) -> None:
    """Prepare and detect all that waits."""
    with workshop.preparing(**changed) as prepare:
        prepare.run()
    with workshop.detecting(**changed) as detect:
        detect.run()


def send(api: Api, *files: bytes) -> list[dict]:
    answer = api.send(*((f"image-{number}.dcm", file) for number, file in enumerate(files)))
    return answer.get_json()["files"]


def findings(api: Api, sent: dict) -> dict:
    images = api.get(f"/v1/studies/{sent['study_id']}/findings").get_json()["images"]
    (image,) = (image for image in images if image["image_id"] == sent["image_id"])
    return image


@pytest.mark.usefixtures("tiny_model_id")
def test_what_becomes_of_every_real_file(api: Api, workshop: Workshop, shared_data: Path) -> None:
    files = {str(path.relative_to(shared_data)): path for path in (shared_data / "dicom").rglob("*.dcm")}
    sent = dict(zip(files, send(api, *(path.read_bytes() for path in files.values())), strict=True))
    work(workshop, rendition_px=256)
    outcomes = {}
    for name, answer in sent.items():
        image = answer if answer["outcome"] == "rejected" else findings(api, answer)
        outcomes[name] = image["code"] or "ok"
        if answer["outcome"] == "accepted":
            expected = ("succeeded", 3) if outcomes[name] == "ok" else ("rejected", 0)
            assert (image["state"], len(image["findings"])) == expected, name
    assert outcomes == EXPECTED_OUTCOMES


@pytest.mark.usefixtures("tiny_model_id")
def test_a_monochrome1_image_has_the_findings_of_its_monochrome2_twin(api: Api, workshop: Workshop) -> None:
    phantom = make_phantom(11, 317, 211)
    sent = [
        send(api, encode_dicom(phantom, photometric=photometric))[0] for photometric in ("MONOCHROME1", "MONOCHROME2")
    ]
    inverted_pixels_alone = make_dicom(
        np.rint(phantom.pixels * 4095).astype(np.uint16), bits=12, PhotometricInterpretation="MONOCHROME1"
    )
    (negative,) = send(api, inverted_pixels_alone)
    work(workshop)
    first, second = (findings(api, twin)["findings"] for twin in sent)
    assert sent[0]["image_id"] != sent[1]["image_id"]
    assert len(first) == 3
    assert first == second
    assert findings(api, negative)["findings"] != first


def test_labels_and_boxes_come_back_as_torchvision_gives_them(api: Api, workshop: Workshop) -> None:
    """A checkpoint goes through import, an odd image through the system; the reference is torchvision's own `forward`.

    Neither side of image, rendition and canvas is a multiple of another.
    """
    height_px, width_px, rendition_px = 1013, 787, 389
    # Shuffled ids with gaps: a shift by one, or a sort, would change what a box is called.
    categories = [Category(id=id_, name=f"finding {id_}") for id_ in (41, 3, 0, 17, 8)]
    _, tiny_weights = make_tiny_model(5, categories=categories, canvas_px=160)
    checkpoint = io.BytesIO()
    torch.save({"model": {f"module.{name}": value for name, value in decode_weights(tiny_weights).items()}}, checkpoint)
    card, weights = import_checkpoint(checkpoint.getvalue(), categories, canvas_px=160)
    model_id = workshop.promote(card, weights)

    file = make_dicom(make_image(height_px, width_px), bits=12)
    (sent,) = send(api, file)
    work(workshop, rendition_px=rendition_px)
    image = findings(api, sent)
    assert (image["height_px"], image["width_px"], image["model"]["id"]) == (height_px, width_px, str(model_id))

    # torchvision lets boxes reach beyond the image, into the canvas' empty margin, and suppresses others for that.
    inside = [
        finding
        for finding in image["findings"]
        if min(finding["box_xyxy_px"][:2]) > 10
        and finding["box_xyxy_px"][2] < width_px - 10
        and finding["box_xyxy_px"][3] < height_px - 10
    ]
    same = 0
    for label, score, box in zip(*forward(card, weights, file, rendition_px), strict=True):
        for finding in inside:
            if np.abs(box - finding["box_xyxy_px"]).max() < 1 and abs(score - finding["score"]) < 1e-3:
                same += 1
                assert (finding["class_id"], finding["class_name"]) == (
                    categories[label - 1].id,
                    categories[label - 1].name,
                )
    assert same > 0.8 * len(inside) > 8


def forward(card: ModelCard, weights: bytes, file: bytes, rendition_px: int) -> tuple[np.ndarray, ...]:
    """Labels, scores and boxes in original pixels, by torchvision alone."""
    rendition = make_rendition(file, rendition_px=rendition_px, max_image_pixels=10**7)
    pixels = read_rendition(rendition.png)
    canvas = torch.from_numpy(fit_to_canvas(pixels, card.canvas_px).canvas).float() / 255
    model = load_model(card, weights).eval()
    with torch.inference_mode():
        (result,) = model([canvas.expand(3, -1, -1)])
    scale = card.canvas_px / max(pixels.shape)
    fitted_height, fitted_width = (round(side * scale) for side in pixels.shape)
    factors = np.array([rendition.original_width_px / fitted_width, rendition.original_height_px / fitted_height] * 2)
    return result["labels"].numpy(), result["scores"].numpy(), result["boxes"].numpy() * factors
