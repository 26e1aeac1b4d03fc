"""The figures of a detector: how quiet it is on normal films, and which lesions it finds, with 95% intervals."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.tools.demo_detector.anatomy import fit_anatomy
from deploy.tools.demo_detector.blending import blend
from deploy.tools.demo_detector.distractors import DISTRACTORS, Distract
from deploy.tools.demo_detector.films import Film, Lesions, shrink
from deploy.tools.demo_detector.material import choose_classes
from shared.detector.boxes import iou
from shared.detector.runtime import Detection, Detector
from shared.phantoms import CLASS_NAMES, DEMO_SEED, make_phantom

Image = NDArray[np.uint8]

#: A lesion is found by a box of its class with at least this score and more than this overlap, as in the demo.
MIN_SCORE, MIN_IOU = 0.3, 0.4
#: Blended films for each real film.
_BLENDS = 4
#: Images with lesions are drawn at this height, which is larger than the detector's canvas.
_DRAWN_PX, _WIDTH_PX = 640, 540
#: Seeds of the phantoms of the evaluation, which no training uses.
EVALUATION_SEED = 1_000_000
_RESAMPLES = 2000


@dataclass(frozen=True)
class Share:
    """A mean over groups (patients, or images), and its 95% interval by bootstrap over the groups."""

    value: float
    low: float
    high: float
    #: What was counted, and the number of groups.
    count: int
    groups: int


@dataclass(frozen=True)
class Figures:
    """The figures of one detector at `MIN_SCORE`."""

    #: By kind of normal image.
    boxes_per_image: dict[str, Share]
    clean_images: dict[str, Share]
    #: By kind of image with lesions: over all lesions, and by class.
    sensitivity: dict[str, Share]
    sensitivity_by_class: dict[str, dict[str, float]]

    def as_metrics(self) -> dict[str, int | float | str | dict[str, float | None] | None]:
        """Return the figures in the form of a card's metrics."""
        metrics: dict[str, int | float | str | dict[str, float | None] | None] = {"score_at_least": MIN_SCORE}
        for title, shares, of in (
            ("boxes per image", self.boxes_per_image, "images"),
            ("share without a box", self.clean_images, "images"),
            ("share found", self.sensitivity, "lesions"),
        ):
            for kind, share in shares.items():
                metrics[f"{kind}: {title}"] = round(share.value, 4)
                metrics[f"{kind}: {title}, 95% interval"] = f"{share.low:.3f} to {share.high:.3f}"
                metrics[f"{kind}: {of}"] = share.count
        for kind, by_class in self.sensitivity_by_class.items():
            metrics[f"{kind}: found by class"] = dict(by_class)
        return metrics


def measure(
    detector: Detector, normal: Sequence[Film], marked: Sequence[Film], *, blends: int = _BLENDS, phantoms: int = 56
) -> Figures:
    """Measure a detector on real films that it has not seen, normal ones and ones with boxes, and on new phantoms."""
    quiet: dict[str, tuple[Share, Share]] = {
        "normal real films": count_boxes(detector, ((film.patient, film.pixels) for film in normal)),
        "normal phantoms with distractors": count_boxes(
            detector, distracted(phantoms, [kind for kind, _ in DISTRACTORS])
        ),
    }
    found = {
        "lesions blended into real films": find_lesions(detector, lesions_in(normal, blends)),
        "real lesions": find_lesions(detector, ((film.patient, film.pixels, film.lesions) for film in marked)),
        "lesions of phantoms": find_lesions(detector, phantoms_of(range(EVALUATION_SEED, EVALUATION_SEED + phantoms))),
        "lesions of the demo": find_lesions(detector, phantoms_of(range(DEMO_SEED, DEMO_SEED + 24))),
    }
    return Figures(
        {kind: boxes for kind, (boxes, _) in quiet.items()},
        {kind: clean for kind, (_, clean) in quiet.items()},
        {kind: share for kind, (share, _) in found.items()},
        {kind: by_class for kind, (_, by_class) in found.items()},
    )


def count_boxes(detector: Detector, images: Iterable[tuple[str, Image]]) -> tuple[Share, Share]:
    """Return boxes per image and the share of images without a box, of (group, uint8 [H, W])."""
    groups, counts = [], []
    for group, pixels in images:
        groups.append(group)
        counts.append(len(detect(detector, pixels)))
    boxes = np.array(counts, np.float64)
    ones = np.ones(len(boxes))
    return _share(groups, boxes, ones), _share(groups, (boxes == 0).astype(np.float64), ones)


def find_lesions(detector: Detector, images: Iterable[tuple[str, Image, Lesions]]) -> tuple[Share, dict[str, float]]:
    """Return the share of lesions that are found, and the same by class, of (group, uint8 [H, W], lesions)."""
    groups, hits, totals = [], [], []
    by_class: dict[int, list[bool]] = {}
    for group, pixels, lesions in images:
        detections = detect(detector, pixels)
        matched = [is_found(class_id, box, detections) for class_id, box in lesions]
        for (class_id, _), hit in zip(lesions, matched, strict=True):
            by_class.setdefault(class_id, []).append(hit)
        groups.append(group)
        hits.append(sum(matched))
        totals.append(len(lesions))
    share = _share(groups, np.array(hits, np.float64), np.array(totals, np.float64))
    return share, {CLASS_NAMES[id_]: round(float(np.mean(hit)), 3) for id_, hit in sorted(by_class.items())}


def detect(detector: Detector, pixels: Image) -> list[Detection]:
    """Return the detections of at least `MIN_SCORE` in a rendition, uint8 [H, W]."""
    (found,) = detector.detect([detector.fit_to_canvas(pixels)])
    return [detection for detection in found.detections if detection.score >= MIN_SCORE]


def is_found(class_id: int, box: tuple[float, float, float, float], detections: Sequence[Detection]) -> bool:
    """Whether a detection of the class overlaps the box enough."""
    planted = np.array([box], np.float32)
    return any(
        detection.category_id == class_id
        and iou(np.array([detection.box_xyxy_px], np.float32), planted).item() > MIN_IOU
        for detection in detections
    )


def lesions_in(films: Sequence[Film], blends: int) -> Iterator[tuple[str, Image, Lesions]]:
    """Yield each film, with lesions blended into it, `blends` times; the same ones each time."""
    for film in films:
        pixels = shrink(film.pixels, _DRAWN_PX)
        fit = fit_anatomy(pixels)
        for number in range(blends if fit else 0):
            rng = np.random.default_rng((zlib.crc32(film.name.encode()), number))
            assert fit is not None
            blended = blend(pixels, fit, choose_classes(rng), rng)
            yield film.patient, blended.pixels, blended.lesions


def phantoms_of(seeds: range) -> Iterator[tuple[str, Image, Lesions]]:
    """Yield phantoms whose lesions are chosen as in the demo."""
    for seed in seeds:
        phantom = make_phantom(seed, _DRAWN_PX, _WIDTH_PX)
        lesions = [(lesion.class_id, lesion.box_xyxy_px) for lesion in phantom.lesions]
        yield str(seed), np.rint(255 * phantom.pixels).astype(np.uint8), lesions


def distracted(count: int, kinds: Sequence[Distract]) -> Iterator[tuple[str, Image]]:
    """Yield normal phantoms, each with a distractor of one of the kinds in turn."""
    for number in range(count):
        seed = EVALUATION_SEED + 10_000 + number
        pixels = np.rint(255 * make_phantom(seed, _DRAWN_PX, _WIDTH_PX, ()).pixels).astype(np.uint8)
        yield str(seed), kinds[number % len(kinds)](pixels, np.random.default_rng(seed))


def _share(groups: Sequence[str], counts: NDArray[np.float64], totals: NDArray[np.float64]) -> Share:
    names = sorted(set(groups))
    index = np.array([names.index(group) for group in groups])
    hit, of = (np.bincount(index, weights=values, minlength=len(names)) for values in (counts, totals))
    drawn = np.random.default_rng(0).integers(0, len(names), (_RESAMPLES, len(names)))
    sums = of[drawn].sum(axis=1)
    rates = hit[drawn].sum(axis=1)[sums > 0] / sums[sums > 0]
    low, high = np.quantile(rates, (0.025, 0.975))
    return Share(float(hit.sum() / of.sum()), float(low), float(high), int(of.sum()), len(names))
