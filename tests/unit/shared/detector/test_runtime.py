"""The runtime gives torchvision's results, whatever else is in the batch, in the rendition's own pixels."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, batched_nms, box_iou

from shared.detector.architectures import Architecture
from shared.detector.card import Category, ModelCard
from shared.detector.demo import load_demo_model
from shared.detector.families import build, plan_of
from shared.detector.fitting import FittedImage, fit_to_canvas
from shared.detector.runtime import Detection, Detector
from shared.detector.suppression import suppress
from shared.detector.weights import decode_weights, encode_weights, load_model
from shared.errors import DetectionFailed, InvalidModelFile
from shared.phantoms import make_phantom

#: Ids with gaps, in no order.
CATEGORIES = tuple(Category(id=id_, name=name) for id_, name in ((30, "Mass"), (7, "Opacity"), (12, "Fibrosis")))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def random_model(
    architecture: Architecture = "carina_small", canvas_px: int = 256, **fields: object
) -> tuple[ModelCard, bytes]:
    """Return a model whose random weights are scaled so that scores and boxes differ widely."""
    draft = ModelCard(
        name="random",
        architecture=architecture,
        categories=CATEGORIES,
        canvas_px=canvas_px,
        anchor_sizes_px=plan_of(architecture).anchor_sizes_px,
        rendition_version=1,
        weights_sha256="0" * 64,
    ).model_copy(update=fields)
    torch.manual_seed(5)
    model = build(draft).eval()
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            module.register_forward_pre_hook(_take_statistics)
    with torch.no_grad():
        mean, std = (torch.tensor(values)[:, None, None] for values in (draft.image_mean, draft.image_std))
        image = ((torch.from_numpy(fit_to_canvas(images()[2], canvas_px).canvas) / 255 - mean) / std)[None]
        features = model.backbone(image)
        if isinstance(model, RetinaNet):
            for head, last in (
                (model.head.classification_head, model.head.classification_head.cls_logits),
                (model.head.regression_head, model.head.regression_head.bbox_reg),
            ):
                _spread(last, head.conv(features["0"]), 0.7)
            model.head.classification_head.cls_logits.bias[:: len(CATEGORIES) + 1] = -20  # output 0 is never used
            return _finished(draft, model)
        hidden = model.rpn.head.conv(features["0"])
        _spread(model.rpn.head.cls_logits, hidden, 2.0)
        _spread(model.rpn.head.bbox_pred, hidden, 0.3)
        size = [(canvas_px, canvas_px)]
        regions, _ = model.rpn(ImageList(image, size), features)
        regions = model.roi_heads.box_roi_pool(features, regions, size)
        hidden = model.roi_heads.box_head(regions)
        _spread(model.roi_heads.box_predictor.cls_score, hidden, 0.7)
        _spread(model.roi_heads.box_predictor.bbox_pred, hidden, 1.0)
    return _finished(draft, model)


def _finished(draft: ModelCard, model: nn.Module) -> tuple[ModelCard, bytes]:
    weights = encode_weights(model.state_dict(), torch.float32)
    return draft.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()}), weights


def _take_statistics(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
    """Normalise by what an image shows, so that random layers pass an image's structure on."""
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    variance = inputs[0].var((0, 2, 3))
    norm.running_var.copy_(variance + 0.1 * variance.mean())


def _spread(layer: nn.Conv2d | nn.Linear, inputs: torch.Tensor, std: float) -> None:
    """Scale a layer's weights so that its outputs have mean 0 and this deviation."""
    outputs = layer(inputs).transpose(0, 1).flatten(1)
    factor = std / outputs.std(1)
    layer.bias.copy_((layer.bias - outputs.mean(1)) * factor)
    layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))


def images() -> list[np.ndarray]:
    """Return renditions of several aspects with structure on several scales."""
    noise = np.random.default_rng(3)
    made = []
    for height, width in ((300, 250), (200, 420), (512, 512), (420, 180), (90, 100)):
        coarse = noise.uniform(0, 200, (7, 5)).astype(np.float32)
        rows, columns = np.linspace(0, 6, height).astype(int), np.linspace(0, 4, width).astype(int)
        made.append((coarse[np.ix_(rows, columns)] + noise.uniform(0, 55, (height, width))).astype(np.uint8))
    return made


def unmatched(
    expected: tuple[Detection, ...], actual: tuple[Detection, ...], score: float, edge_px: float
) -> list[Detection]:
    """Return the expected detections that `actual` lacks, given how far a score and an edge may differ.

    A list is cut at `max_detections`; what lies at the cut may fall to either side.
    """
    return [
        one
        for one in expected
        if one.score > expected[-1].score + score
        and not any(
            one.category_id == other.category_id
            and abs(one.score - other.score) <= score
            and np.abs(np.subtract(one.box_xyxy_px, other.box_xyxy_px)).max() <= edge_px
            for other in actual
        )
    ]


def detections(detector: Detector, placed: list[FittedImage]) -> list[tuple[Detection, ...]]:
    """Return each image's detections."""
    return [found.detections for found in detector.detect(placed)]


def overlap(one: Detection, other: Detection) -> float:
    """Return the intersection over union of two detections' boxes."""
    return box_iou(torch.tensor([one.box_xyxy_px]), torch.tensor([other.box_xyxy_px])).item()


def torchvisions_own(card: ModelCard, weights: bytes, placed: FittedImage) -> tuple[Detection, ...]:
    """Return what the model's own `forward` finds on an image that fills its canvas."""
    canvas = torch.from_numpy(placed.canvas)[None].expand(3, -1, -1) / 255
    with torch.inference_mode():
        found = load_model(card, weights).eval()([canvas])[0]
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"] / placed.scale_x, strict=True)
    return tuple(
        Detection(card.category_of(label).id, card.category_of(label).name, score, tuple(box.tolist()))
        for label, score, box in rows
    )


@pytest.mark.parametrize(
    ("architecture", "canvas_px", "score", "edge_px", "misses"),
    [
        ("carina_small", 256, 1e-3, 0.5, 0),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 256, 1e-3, 0.5, 0),
        # Random weights this deep enlarge rounding: torchvision's own results move by as much from float32 to float64.
        ("fasterrcnn_resnet50_fpn_v2", 64, 0.03, 8, 5),
        ("retinanet_resnet50_fpn", 128, 1e-3, 0.5, 0),
    ],
)
def test_results_equal_torchvisions_own_forward(
    architecture: Architecture, canvas_px: int, score: float, edge_px: float, misses: int
) -> None:
    card, weights = random_model(architecture, canvas_px)
    detector = Detector(card, weights, "cpu", "fp32")
    placed = detector.fit_to_canvas(images()[2])
    expected, actual = torchvisions_own(card, weights, placed), detector.detect([placed])[0].detections
    assert len(actual) == len(expected) > 10
    assert {detection.category_id for detection in actual} == {30, 7, 12}
    # torchvision's RetinaNet reports boxes without area, too.
    expected = tuple(one for one in expected if overlap(one, one) > 0.5)
    assert len(expected) > 10
    assert len(unmatched(expected, actual, score, edge_px)) <= misses


def test_an_image_gets_the_same_result_whatever_its_company() -> None:
    card, weights = random_model()
    detector = Detector(card, weights, "cpu", "fp32")
    placed = [detector.fit_to_canvas(image) for image in images()]
    together = detections(detector, placed)
    alone = [detections(detector, [image])[0] for image in placed]
    reversed_pair = detections(detector, [placed[3], placed[1]])
    for one, other in [*zip(alone, together, strict=True), (alone[3], reversed_pair[0]), (alone[1], reversed_pair[1])]:
        assert len(one) == len(other) > 10
        assert unmatched(one, other, score=1e-5, edge_px=1e-2) == []


@pytest.fixture(scope="module")
def demo() -> tuple[ModelCard, bytes, list[np.ndarray]]:
    """The model that ships, with images that it finds something in."""
    card, weights = load_demo_model()
    return card, weights, [np.rint(255 * make_phantom(seed, 512, 430).pixels).astype(np.uint8) for seed in range(1, 9)]


def test_bf16_finds_the_same_and_moves_its_scores_by_little(demo: tuple[ModelCard, bytes, list[np.ndarray]]) -> None:
    """Measured on 100 images: half of the scores move by less than 0.0003, one in twenty by more than 0.01."""
    card, weights, renditions = demo
    exact, fast = (Detector(card, weights, "cpu", precision) for precision in ("fp32", "bf16"))
    batch = [exact.fit_to_canvas(rendition) for rendition in renditions]
    moved = []
    for expected, actual in zip(detections(exact, batch), detections(fast, batch), strict=True):
        for one in (detection for detection in expected if detection.score > 0.4):
            same = [other for other in actual if other.category_id == one.category_id and overlap(one, other) > 0.5]
            assert same
            moved.append(min(abs(one.score - other.score) for other in same))
    assert len(moved) >= 6
    assert np.median(moved) < 0.01
    assert max(moved) < 0.15


def test_the_demo_model_gives_a_image_the_same_result_whatever_its_company(
    demo: tuple[ModelCard, bytes, list[np.ndarray]],
) -> None:
    card, weights, renditions = demo
    detector = Detector(card.model_copy(update={"score_threshold": 0.001}), weights, "cpu", "fp32")
    cut = renditions[3][100:400]  # An image of another aspect.
    placed = [detector.fit_to_canvas(rendition) for rendition in (*renditions[:4], cut)]
    together = detections(detector, placed)
    assert sum(map(len, together)) > 10
    for image, expected in zip(placed, together, strict=True):
        (alone,) = detections(detector, [image])
        assert len(alone) == len(expected)
        assert unmatched(expected, alone, score=1e-5, edge_px=1e-2) == []


def test_boxes_stay_inside_the_rendition() -> None:
    card, weights = random_model()
    detector = Detector(card, weights, "cpu", "fp32")
    for image in images():
        boxes = np.array([d.box_xyxy_px for d in detections(detector, [detector.fit_to_canvas(image)])[0]])
        height, width = image.shape
        assert boxes.min() >= 0
        assert boxes[:, 2].max() <= width
        assert boxes[:, 3].max() <= height
        assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize(("height", "width"), [(1024, 860), (333, 1024), (1024, 1), (50, 40)])
def test_placing_fits_a_image_onto_the_top_left_and_knows_the_way_back(height: int, width: int) -> None:
    image = np.full((height, width), 200, np.uint8)
    placed = fit_to_canvas(image, 256)
    fitted_height, fitted_width = round(height * placed.scale_y), round(width * placed.scale_x)
    assert max(fitted_height, fitted_width) == 256
    assert (placed.canvas[:fitted_height, :fitted_width] == 200).all()
    assert placed.canvas.sum() == 200 * fitted_height * fitted_width
    assert (placed.height_px, placed.width_px) == (height, width)


def test_a_landmark_comes_back_to_its_place_in_the_rendition() -> None:
    image = np.zeros((900, 700), np.uint8)
    image[540:560, 210:230] = 255
    placed = fit_to_canvas(image, 448)
    middles = np.arange(448) + 0.5
    column, row = (np.average(middles, weights=placed.canvas.sum(axis)) for axis in (0, 1))
    np.testing.assert_allclose((column / placed.scale_x, row / placed.scale_y), (220, 550), atol=0.1)


def test_suppression_is_torchvisions() -> None:
    torch.manual_seed(1)
    corners = torch.rand(6, 200, 4) * 90
    boxes = torch.cat((corners[..., :2], corners[..., :2] + corners[..., 2:] / 2), dim=-1)
    valid, labels = torch.rand(6, 200) > 0.1, torch.randint(0, 3, (6, 200))
    kept = suppress(boxes, valid, 0.4, labels)
    for group in range(6):
        ranks = torch.arange(200, 0, -1).float()
        inside = valid[group].nonzero()[:, 0]
        expected = batched_nms(boxes[group, inside], ranks[inside], labels[group, inside], 0.4)
        assert kept[group].nonzero()[:, 0].tolist() == sorted(inside[expected].tolist())
        assert 0 < len(expected) < len(inside)


@pytest.mark.parametrize("architecture", ["carina_small", "fasterrcnn_mobilenet_v2_fpn", "retinanet_resnet50_fpn"])
def test_the_abnormality_head_lowers_the_scores_of_an_image(architecture: Architecture) -> None:
    card, weights = random_model(architecture, 128, abnormality_exponent=0.5, score_threshold=0.3)
    batch = [fit_to_canvas(image, card.canvas_px) for image in images()]
    pixels = torch.stack([torch.from_numpy(placed.canvas) for placed in batch])[:, None]
    mean, std = (torch.tensor(values)[:, None, None] for values in (card.image_mean, card.image_std))
    model = load_model(card, weights).eval()
    with torch.no_grad():
        features = model.backbone((pixels / 255 - mean) / std)
        logits = model.abnormality(features)
        score = model.abnormality.score  # scaled, so that the probabilities differ
        score.bias.copy_((score.bias - logits.mean()) / logits.std())
        score.weight.div_(logits.std())
        probabilities = model.abnormality(features).sigmoid().tolist()
    assert max(probabilities) - min(probabilities) > 0.2

    detector = Detector(*_finished(card, model), "cpu", "fp32")
    del model.abnormality
    plain = Detector(*_finished(card.model_copy(update={"abnormality_exponent": None}), model), "cpu", "fp32")
    found, expected = detector.detect(batch), plain.detect(batch)
    for image, bare, probability in zip(found, expected, probabilities, strict=True):
        assert image.abnormality == pytest.approx(probability, abs=1e-3)
        assert bare.abnormality is None
        factor = probability**0.5
        above = [one for one in bare.detections if one.score * factor > card.score_threshold + 1e-3]
        lowered = [replace(one, score=one.score * factor) for one in above]
        assert unmatched(tuple(lowered), image.detections, 2e-3, 0.5) == []
        assert all(one.score > card.score_threshold for one in image.detections)
    alone = [detector.detect([placed])[0].abnormality for placed in batch]
    assert alone == pytest.approx([image.abnormality for image in found], abs=1e-5)


def test_a_card_without_a_head_has_the_digest_of_cards_before_there_were_heads() -> None:
    card, _ = random_model()
    fields = card.model_dump(mode="json", exclude={"warnings", "abnormality_exponent", "multi_label"})
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert card.digest == hashlib.sha256(text.encode()).hexdigest()
    assert card.digest != card.model_copy(update={"abnormality_exponent": 0.0}).digest


def test_foreign_weights_are_refused() -> None:
    card, weights = random_model()
    with pytest.raises(InvalidModelFile, match="not the ones that the model card names"):
        Detector(card, weights + b" ", "cpu")


def test_scores_that_are_no_numbers_are_not_taken_for_no_findings() -> None:
    """Weights that overflow: each is finite, but what they compute is not."""
    card, weights = random_model()
    state = decode_weights(weights)
    state["roi_heads.box_head.fc7.weight"] *= 1e38
    weights = encode_weights(state, torch.float32)
    card = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    detector = Detector(card, weights, "cpu", "fp32")
    with pytest.raises(DetectionFailed, match="not numbers"):
        detector.detect([detector.fit_to_canvas(images()[0])])


def test_an_empty_batch_has_no_results() -> None:
    card, weights = random_model()
    assert Detector(card, weights, "cpu").detect([]) == []
