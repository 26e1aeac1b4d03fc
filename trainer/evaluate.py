"""An evaluation as a task: all ranks run the model over a split, and the first rank computes the metrics."""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import count
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from shared.detector.boxes import rescale
from shared.detector.card import Category, ModelCard
from shared.detector.fitting import FittedImage
from shared.detector.runtime import Detector, ImageDetections
from shared.errors import NotFound, PermanentError, TransientError
from shared.object_store import ObjectStore, result_key, weights_key
from shared.suggestions import nearest
from shared.tables import Dataset as DatasetRow
from shared.tables import Evaluation, Model
from shared.training.config import EvaluationConfig
from shared.version import code_version
from shared.vocabulary.states import TaskState
from trainer.datasets.dataset import Dataset, DatasetImage
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.storage import encode_boxes
from trainer.evaluation.summary import MissingClass, summarise
from trainer.lineage import learnt_from, read_dataset
from trainer.ranks import Ranks, joined
from trainer.rendition_reader import RenditionReader
from trainer.reporting import store_report
from trainer.task import Work

log = structlog.get_logger()

#: Number of classes that an error names.
_MAX_NAMED = 5


class EvaluationMeetsTraining(PermanentError):
    """The model was trained on images or patients of the evaluation split. Choose another split."""

    code = "evaluation_meets_training"


class NothingToEvaluate(PermanentError):
    """The split contains no image."""

    code = "nothing_to_evaluate"


class ClassesDiffer(PermanentError):
    """The model and the dataset have no class name in common."""

    code = "classes_differ"


class EvaluationPending(TransientError):
    """The evaluation that the gate needs has not finished."""

    code = "evaluation_pending"
    counts = False


class EvaluationFailed(PermanentError):
    """The evaluation that the gate needs has failed."""

    code = "evaluation_failed"


def run(work: Work) -> None:
    """Evaluate a model on a split: compute and store detections, metrics and report."""
    with joined(work.settings.device, work.settings.torch_threads) as ranks:
        with work.database.begin() as session:
            row = session.get_one(Evaluation, work.claim.task_id)
            config = EvaluationConfig.model_validate(row.config)
            dataset = read_dataset(session, work.store, row.dataset_id).of(config.split)
            human = (session.get_one(DatasetRow, row.dataset_id).summary or {}).get("human", {}).get(config.split)
            images = dataset.images
            card = ModelCard.model_validate(session.get_one(Model, row.model_id).card)
            refuse_training_images(session, work.store, row.model_id, images)
        if not images:
            raise NothingToEvaluate(f"The split {config.split} of {dataset.name} holds no image.")
        weights = work.store.get(weights_key(card.weights_sha256), sha256=card.weights_sha256)
        read = RenditionReader.from_settings(work.settings, work.store)
        asked = {"score_threshold": config.score_threshold, "max_detections": config.max_detections}
        renamed = name_as_dataset(card, dataset)
        detector = Detector(renamed.model_copy(update=asked), weights, str(ranks.device), work.settings.precision)
        found = detect(work, detector, images, read, config.batch_size, ranks)
        if ranks.is_first:
            _conclude(work, card, renamed.categories, dataset, config, found, read, human)


def detect(
    work: Work, detector: Detector, images: Sequence[DatasetImage], read: RenditionReader, batch_size: int, ranks: Ranks
) -> dict[int, Boxes]:
    """Return the detections of each image, by image id, in pixels of the original; the same on every rank.

    Each pass has the same shape, filled up with blank images, so that a result depends neither on the number of ranks
    nor on the other images of a pass. A rank without images still takes part in the collective operation.
    """

    def report(done: int) -> None:
        if ranks.is_first:
            work.report(images=min(done * ranks.world, len(images)), images_total=len(images))

    found = find(detector, images[ranks.rank :: ranks.world], read, batch_size, report)
    return {image_id: boxes for part in ranks.gather(found) for image_id, boxes in part.items()}


def find(
    detector: Detector,
    images: Sequence[DatasetImage],
    read: RenditionReader,
    batch_size: int,
    report: Callable[[int], None] = lambda _: None,
) -> dict[int, Boxes]:
    """Return the detections of this rank's images. `report` is called with the images in finished passes."""
    blank = detector.fit_to_canvas(np.zeros((64, 64), np.uint8))
    found: dict[int, Boxes] = {}
    with ThreadPoolExecutor(2) as threads:
        groups = _groups(threads, images, batch_size, lambda image: detector.fit_to_canvas(read(image)))
        for done, (group, canvases) in enumerate(groups, start=1):
            results = detector.detect([*canvases, *[blank] * (batch_size - len(canvases))])
            found |= {image.image_id: boxes_of(image, result) for image, result in zip(group, results, strict=False)}
            report(done * batch_size)
    return found


def evaluate_model(work: Work, model_id: UUID, dataset_id: UUID, config: EvaluationConfig) -> UUID:
    """Return the id of a succeeded evaluation with these arguments; if there is none, request one.

    Raises `EvaluationPending` until it has finished, and `EvaluationFailed` if it has failed.
    """
    asked = config.model_dump(mode="json")
    with work.database.begin() as session:
        task = session.get_one(work.claim.table, work.claim.task_id)
        matching = (
            sa.select(Evaluation)
            .where(
                Evaluation.project_id == task.project_id,
                Evaluation.model_id == model_id,
                Evaluation.dataset_id == dataset_id,
                Evaluation.config == asked,
                Evaluation.state != TaskState.CANCELLED,
            )
            .order_by((Evaluation.state == TaskState.SUCCEEDED).desc(), Evaluation.id.desc())
            .limit(1)
        )
        row = session.scalar(matching)
        if row is not None and row.state == TaskState.SUCCEEDED:
            return row.id
        # An evaluation that failed before this task was created is repeated.
        if row is not None and row.state == TaskState.FAILED and row.created_at >= task.created_at:
            raise EvaluationFailed(f"Evaluation {row.id} has failed: {row.code}: {row.reason}")
        if row is None or row.state == TaskState.FAILED:
            if session.get(Model, model_id) is None or session.get(DatasetRow, dataset_id) is None:
                raise NotFound("The model or the dataset is gone.")
            asked_for = {"model_id": model_id, "dataset_id": dataset_id, "config": asked}
            session.add(Evaluation(project_id=task.project_id, **asked_for))
    raise EvaluationPending


def refuse_training_images(
    session: Session, store: ObjectStore, model_id: UUID, images: Sequence[DatasetImage]
) -> None:
    """Raise `EvaluationMeetsTraining` if the model or one of its ancestors was trained on one of these images."""
    groups, originals = {image.group for image in images}, {image.sha256 for image in images}
    for learnt in learnt_from(session, store, model_id):
        met = sum(image.group in groups or image.sha256 in originals for image in learnt)
        if met:
            raise EvaluationMeetsTraining(f"The model has learnt from {met} of these images or of their patients.")


def to_material(
    dataset: Dataset,
    images: Sequence[DatasetImage],
    found: dict[int, Boxes],
    categories: tuple[Category, ...] | None = None,
) -> EvaluationSet:
    """Return the true boxes and the detections of the images, in pixels of the original.

    `categories` are the evaluated ones; by default all of the dataset.
    """
    return EvaluationSet(
        image_ids=tuple(image.image_id for image in images),
        patients=tuple(image.group for image in images),
        categories=dataset.categories if categories is None else categories,
        truth={
            image.image_id: Boxes(image.category_ids, image.boxes_xyxy_px, np.ones(len(image.category_ids), np.float32))
            for image in images
        },
        found=found,
        sizes_px={image.image_id: image.size_px for image in images},
    )


def name_as_dataset(card: ModelCard, dataset: Dataset) -> ModelCard:
    """Return the card with the dataset's ids for classes of the same name.

    A class that only the model knows gets an id that the dataset does not use. Raises `ClassesDiffer` if the images
    have boxes and the model knows none of the classes.
    """
    ids = {category.name.casefold(): category.id for category in dataset.categories}
    free = count(max(ids.values(), default=-1) + 1)
    names = [category.name.casefold() for category in card.categories]
    if not set(names) & set(ids) and any(len(image.category_ids) for image in dataset.images):
        raise ClassesDiffer(
            f"The model and the dataset have no class in common. The dataset has {_list(dataset.categories)}; the "
            f"model has {_list(card.categories)}."
        )
    renamed = tuple(
        category.model_copy(update={"id": ids[name] if name in ids else next(free)})
        for category, name in zip(card.categories, names, strict=True)
    )
    return card.model_copy(update={"categories": renamed})


def evaluated_categories(known: Sequence[Category], dataset: Dataset) -> tuple[Category, ...]:
    """Return the classes of the dataset that the model knows. `known` are the model's classes, with the dataset's ids.

    If it knows none, the images are normal and all its detections are false positives: its own classes are returned.
    """
    ids = {category.id for category in known}
    shared = tuple(category for category in dataset.categories if category.id in ids)
    return shared or tuple(known)


def missing_classes(known: Sequence[Category], dataset: Dataset) -> list[MissingClass]:
    """Return the classes of the dataset that the model does not know, each with the most similar class of the model."""
    names = {category.name.casefold(): category.name for category in known}
    boxes = Counter(category_id for image in dataset.images for category_id in image.category_ids.tolist())
    missing = []
    for category in dataset.categories:
        if category.name.casefold() not in names:
            closest = nearest(category.name, names.values())
            missing.append(MissingClass(name=category.name, boxes=boxes[category.id], closest=closest))
    return missing


def _list(categories: Sequence[Category]) -> str:
    names = ", ".join(category.name for category in categories[:_MAX_NAMED])
    return f"{names} and {len(categories) - _MAX_NAMED} more" if len(categories) > _MAX_NAMED else names


def _conclude(
    work: Work,
    card: ModelCard,
    known: Sequence[Category],
    dataset: Dataset,
    config: EvaluationConfig,
    found: dict[int, Boxes],
    read: RenditionReader,
    human: Mapping[str, Any] | None,
) -> None:
    """Compute the metrics, store detections and report, and write the row."""
    images = dataset.images
    material = to_material(dataset, images, found, evaluated_categories(known, dataset))
    work.report(images=len(images), images_total=len(images), computing="metrics")
    summary = summarise(
        material,
        bootstrap_samples=config.bootstrap_samples,
        seed=config.seed,
        score_threshold=config.score_threshold,
        missing=missing_classes(known, dataset),
        human=human,
        abnormality_exponent=card.abnormality_exponent,
    )
    report_sha256 = store_report(
        work.store, read, card=card, dataset=dataset, split=config.split, material=material, summary=summary
    )
    detections = encode_boxes(found)
    detections_sha256 = hashlib.sha256(detections).hexdigest()
    work.store.put(result_key(detections_sha256, "json"), detections)
    metrics = summary.model_dump(mode="json") | {"code_version": code_version(), "dataset_digest": dataset.digest}
    with work.database.begin() as session:
        work.succeed(session, metrics=metrics, detections_sha256=detections_sha256, report_sha256=report_sha256)
    log.info("evaluated", images=summary.images, map40=summary.map40.value, coco_ap=summary.coco_ap.value)


def _groups(
    threads: Executor, images: Sequence[DatasetImage], size: int, place: Callable[[DatasetImage], FittedImage]
) -> Iterator[tuple[Sequence[DatasetImage], list[FittedImage]]]:
    """Yield the images of each pass with their canvases. Only the next pass is read in advance."""
    starts = range(0, len(images), size)
    begun: deque[list[Future[FittedImage]]] = deque()
    for start in starts:
        begun.append([threads.submit(place, image) for image in images[start : start + size]])
        if len(begun) > 1:
            yield images[start - size : start], [future.result() for future in begun.popleft()]
    if begun:
        yield images[starts[-1] :], [future.result() for future in begun.popleft()]


def boxes_of(image: DatasetImage, found: ImageDetections) -> Boxes:
    """Return the detections of an image in pixels of the original."""
    detections = found.detections
    return Boxes(
        np.array([detection.category_id for detection in detections], np.int64),
        rescale([detection.box_xyxy_px for detection in detections], image.rendition_size_px, image.size_px),
        np.array([detection.score for detection in detections], np.float64),
        found.abnormality,
    )
