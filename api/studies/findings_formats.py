"""The formats of exported findings, used by the routes, the client and the command line."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

from api.contract.findings import NOTICE, FindingsAnswer, FindingsFormat, ImageFindings, ImageResult
from api.http.result_format import Format
from shared.csv_cells import CsvWriter
from shared.errors import RequestError
from shared.processes.scratch import spooled_file
from shared.vocabulary.states import JobState

CSV_COLUMNS = (
    "study_id",
    "image_id",
    "job_id",
    "state",
    "code",
    "class_id",
    "class_name",
    "score",
    "x_min_px",
    "y_min_px",
    "x_max_px",
    "y_max_px",
    "width_px",
    "height_px",
    "model",
    "model_digest",
    "x_min_mm",
    "y_min_mm",
    "x_max_mm",
    "y_max_mm",
    "row_spacing_mm",
    "column_spacing_mm",
    "spacing_source",
    "flags",
    "model_state",
    "is_authoritative",
    "model_warnings",
    "abnormality",
)
#: Size of the annotations of a COCO document that are kept in memory until its images have been written.
_SPOOLED_BYTES = 1024**2


@dataclass(frozen=True)
class UsedModel:
    """A model with exported results."""

    id: UUID
    name: str
    card: Mapping[str, Any]


Studies = Iterable[FindingsAnswer]
#: Returns the models whose results come first for an image of these studies.
FindModels = Callable[[], Sequence[UsedModel]]


class ModelsDiffer(RequestError):
    """The images have results of models whose classes differ. COCO cannot express that; export them as CSV or JSON."""

    code = "models_differ"
    status = 409


def write_json(studies: Studies, _: FindModels) -> Iterator[str]:
    """Write an array of studies."""
    yield "["
    for number, study in enumerate(studies):
        yield (",\n" if number else "\n") + study.model_dump_json()
    yield "\n]\n"


def write_jsonl(studies: Studies, _: FindModels) -> Iterator[str]:
    """Write each study as an object on its own line."""
    for study in studies:
        yield study.model_dump_json() + "\n"


def write_csv(studies: Studies, _: FindModels) -> Iterator[str]:
    """Write a row for each finding, and one without a class for a result without findings.

    The rows of the active model come first for each image; `is_authoritative` distinguishes them from other models'
    rows.
    """
    yield ",".join(CSV_COLUMNS) + "\r\n"
    for study in studies:
        lines = io.StringIO()
        writer = CsvWriter(lines)
        for image in study.images:
            for result in image.results():
                writer.write_all(_rows(study, image, result))
        yield lines.getvalue()


def _rows(study: FindingsAnswer, image: ImageFindings, result: ImageResult) -> Iterator[Sequence[Any]]:
    head = (study.study_id, image.image_id, result.job_id, result.state, result.code)
    spacing, model = image.pixel_spacing, result.model
    size = (image.width_px, image.height_px, *((model.name, model.digest) if model else ("", "")))
    tail = (spacing.row_mm, spacing.column_mm, spacing.source) if spacing else ("", "", "")
    about = (" ".join(image.flags or ()), model.state if model else "", str(result.is_authoritative).lower())
    found: list[tuple[list[Any], Sequence[Any]]] = [
        ([one.class_id, one.class_name, one.score, *one.box_xyxy_px], one.box_xyxy_mm or [""] * 4)
        for one in result.findings
    ]
    end = (" ".join(model.warnings) if model else "", result.abnormality)
    for one, mm in found or [([""] * 7, [""] * 4)]:
        yield (*head, *one, *size, *mm, *tail, *about, *end)


def write_coco(studies: Studies, find_models: FindModels) -> Iterator[str]:
    """Write a COCO document whose annotations have scores: images with a result, and the classes of their models.

    Each image has one result: the authoritative one, else that of the most recently active model. COCO defines no
    `score`, and for an image no `study_id`, `pixel_spacing`, `flags`, model and `abnormality`; COCO readers ignore
    these fields.
    """
    models = find_models()
    info = {
        "description": NOTICE,
        "models": {str(model.id): model.name for model in models},
        "model_warnings": {str(model.id): model.card.get("warnings", []) for model in models},
    }
    return _coco(studies, info, _categories(models))


def _coco(studies: Studies, info: dict[str, Any], categories: list[dict[str, Any]]) -> Iterator[str]:
    yield f'{{"info": {json.dumps(info)}, "images": ['
    image_number, annotation_numbers = 0, count(1)
    with spooled_file(_SPOOLED_BYTES) as annotations:
        for study in studies:
            for image in study.images:
                result = next((one for one in image.results() if one.state == JobState.SUCCEEDED), None)
                if result is None:
                    continue
                image_number += 1
                yield (", " if image_number > 1 else "") + json.dumps(_image(image_number, study, image, result))
                for annotation in _annotations(result, image_number, annotation_numbers):
                    annotations.write(f"{', ' if annotation['id'] > 1 else ''}{json.dumps(annotation)}".encode())
        yield f'], "categories": {json.dumps(categories)}, "annotations": ['
        annotations.seek(0)
        while piece := annotations.read(_SPOOLED_BYTES):
            yield piece.decode()  # only ASCII
    yield "]}\n"


def _image(number: int, study: FindingsAnswer, image: ImageFindings, result: ImageResult) -> dict[str, Any]:
    model = result.model
    return {
        "id": number,
        "file_name": str(image.image_id),
        "width": image.width_px,
        "height": image.height_px,
        "study_id": str(study.study_id),
        "pixel_spacing": image.pixel_spacing and image.pixel_spacing.model_dump(mode="json"),
        "flags": image.flags,
        "model": model and model.name,
        "model_digest": model and model.digest,
        "model_state": model and model.state,
        "is_authoritative": result.is_authoritative,
        "abnormality": result.abnormality,
    }


def _annotations(result: ImageResult, image_number: int, numbers: Iterator[int]) -> Iterator[dict[str, Any]]:
    for finding in result.findings:
        x_min, y_min, x_max, y_max = finding.box_xyxy_px
        width, height = x_max - x_min, y_max - y_min
        yield {
            "id": next(numbers),
            "image_id": image_number,
            "category_id": finding.class_id,
            "bbox": [x_min, y_min, width, height],
            "area": width * height,
            "iscrowd": 0,
            "score": finding.score,
        }


def _categories(models: Iterable[UsedModel]) -> list[dict[str, Any]]:
    """Return the classes of these models' cards. Raises `ModelsDiffer`."""
    names: dict[int, str] = {}
    for model in models:
        for category in model.card["categories"]:
            if names.setdefault(category["id"], category["name"]) != category["name"]:
                raise ModelsDiffer
    return [{"id": id_, "name": name} for id_, name in sorted(names.items())]


#: The only list of the formats; a member of `FindingsFormat` without an entry fails the tests.
FORMATS: dict[FindingsFormat, Format[Callable[[Studies, FindModels], Iterator[str]]]] = {
    FindingsFormat.JSON: Format("application/json", write_json),
    FindingsFormat.JSONL: Format("application/jsonl", write_jsonl, '{"study_id":"01a208a2-…","images":[…]}\n'),
    FindingsFormat.CSV: Format(
        "text/csv; charset=utf-8", write_csv, "study_id,image_id,…\r\n01a208a2-…,01a208a3-…,…\r\n"
    ),
    FindingsFormat.COCO: Format("application/json", write_coco),
}
