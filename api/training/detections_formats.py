"""The formats of an evaluation's detections: as they are stored, for pycocotools, and for Kaggle's challenge."""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from api.contract.training import DetectionsFormat
from api.http.result_format import Format
from shared.csv_cells import CsvWriter
from shared.errors import RequestError

#: Kaggle's class of an image without findings; its box is always 0 0 1 1.
NO_FINDING_ID = 14


class NoFindingIdTaken(RequestError):
    """Kaggle's format uses class 14 for "No finding", but the dataset has another class 14. Export as `coco`."""

    code = "no_finding_id_taken"
    status = 409


@dataclass(frozen=True)
class Detection:
    """A detection of an evaluated class."""

    category_id: int
    score: float
    #: In pixels of the original.
    box_xyxy_px: tuple[float, float, float, float]


@dataclass(frozen=True)
class Detections:
    """The detections of an evaluation, with the names of its images."""

    #: The JSON that the evaluation stored.
    stored: bytes
    #: The file name of each evaluated image, by image id.
    names: Mapping[int, str]
    #: `metrics` of the evaluation.
    metrics: Mapping[str, Any]

    @cached_property
    def category_ids(self) -> frozenset[int]:
        """Return the evaluated classes; the model can detect others, which do not count."""
        return frozenset(category["id"] for category in self.metrics["categories"])

    def by_image(self) -> Iterator[tuple[int, list[Detection], float]]:
        """Yield the evaluated images in the order of their ids, each with the detections that count.

        The last value is the image's score of any finding, as for AUROC and "No finding": the probability of the
        model's abnormality head, else the highest score.
        """
        has_head = self.metrics.get("abnormality") is not None
        content = json.loads(self.stored)
        found = {image["image_id"]: image for image in content["images"]}
        # The shortest form of a single stands for its exact value, which the metrics use.
        precision = np.float32 if content["precision"] == "single" else np.float64
        for image_id in sorted(self.names):
            image = found.get(image_id, {"category_ids": [], "scores": [], "boxes_xyxy": []})
            scores = np.array(image["scores"], precision).tolist()
            boxes = np.array(image["boxes_xyxy"], precision).tolist()
            rows = zip(image["category_ids"], scores, boxes, strict=True)
            every = (Detection(category_id, score, tuple(box)) for category_id, score, box in rows)
            counted = (one for one in every if one.category_id in self.category_ids)
            kept = [one for one in counted if one.score >= self.metrics["score_threshold"]]
            highest = max((one.score for one in kept), default=0.0)
            yield image_id, kept, image["abnormality"] if has_head else highest


def write_json(detections: Detections) -> Iterator[str]:
    """Write the detections as they are stored."""
    yield detections.stored.decode()


def write_coco(detections: Detections) -> Iterator[str]:
    """Write COCO's results, with the ids of the dataset's COCO document."""
    separator = "["
    for image_id, found, _ in detections.by_image():
        for one in found:
            left, top, right, bottom = one.box_xyxy_px
            bbox = [left, top, right - left, bottom - top]
            row = {"image_id": image_id, "category_id": one.category_id, "bbox": bbox, "score": one.score}
            yield separator + json.dumps(row)
            separator = ",\n"
    yield "[]\n" if separator == "[" else "]\n"


def write_kaggle(detections: Detections) -> Iterator[str]:
    """Write the submission of the VinBigData challenge: `class score x1 y1 x2 y2` of each detection of an image.

    Each image also has the class "No finding", with 1 minus the image's score of any finding.
    """
    if NO_FINDING_ID in detections.category_ids:
        raise NoFindingIdTaken
    return _kaggle_rows(detections)


def _kaggle_rows(detections: Detections) -> Iterator[str]:
    yield "image_id,PredictionString\r\n"
    for image_id, found, any_finding in detections.by_image():
        words = [word for one in found for word in (one.category_id, one.score, *one.box_xyxy_px)]
        line = io.StringIO()
        words += [NO_FINDING_ID, 1 - any_finding, 0, 0, 1, 1]
        CsvWriter(line).write((detections.names[image_id], " ".join(map(repr, words))))
        yield line.getvalue()


#: The only list of the formats; a member of `DetectionsFormat` without an entry fails the tests.
FORMATS: dict[DetectionsFormat, Format[Callable[[Detections], Iterator[str]]]] = {
    DetectionsFormat.JSON: Format("application/json", write_json),
    DetectionsFormat.COCO: Format("application/json", write_coco),
    DetectionsFormat.KAGGLE: Format(
        "text/csv; charset=utf-8",
        write_kaggle,
        "image_id,PredictionString\r\n0042,3 0.87 912.5 1410.0 1803.0 1995.5 14 …\r\n",
    ),
}
