"""How well a detector learns from the boxes of several readers: each consensus and loss, scored against the truth.

Hard phantoms have known lesions, and simulated readers draw on those that a detector learns from. Each training starts
from the shipped model; images and detections are kept under `build/bench/labels`. One training takes about two minutes
of a CPU core. `CARINA_BENCH_SEEDS` (default `0`; separated by commas) and `CARINA_BENCH_LABELS` (default: all;
separated by semicolons) choose seeds and rows.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from shared.detector.card import Category
from shared.detector.demo import load_demo_model
from shared.detector.runtime import Detector
from shared.detector.weights import decode_weights
from shared.phantoms import CLASS_NAMES
from shared.phantoms.hard import expected_lesions, make_hard_phantom
from shared.phantoms.phantom import Lesion, Phantom
from shared.phantoms.readers import READERS, read_phantom
from shared.training.config import Augmentation, Labels, Split, TrainingConfig
from shared.training.dataset_source import Consensus
from shared.version import RENDITION_VERSION
from tests.bench.figure import Figure
from tests.bench.servers import REPOSITORY
from tests.recording_checkpointer import RecordingCheckpointer
from trainer import initial_weights
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box
from trainer.datasets.consensus import agree, listen
from trainer.datasets.dataset import Dataset, DatasetImage
from trainer.datasets.reader_model import fit_readers, with_probabilities
from trainer.evaluate import boxes_of, to_material
from trainer.evaluation.bootstrap import bootstrap
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.paired import paired_gain
from trainer.evaluation.voc import evaluate_voc
from trainer.fit import draft_card, fit
from trainer.ranks import Ranks

KEPT = REPOSITORY / "build" / "bench" / "labels"
TRAINING, HELD_OUT = 1000, 500
HEIGHT_PX, WIDTH_PX = 320, 270
SAMPLES = 1000
CATEGORIES = tuple(Category(id=id_, name=name) for id_, name in enumerate(CLASS_NAMES))
#: A small network on a small canvas, so that many trainings can be compared.
CONFIG = TrainingConfig(
    architecture="carina_small",
    initial_weights="none",
    canvas_px=192,
    anchor_sizes_px=((8, 13), (20, 32), (50, 80)),
    frozen_stages=7,
    epochs=2,
    batch_size=8,
    optimizer="adamw",
    learning_rate=4e-4,
    weight_decay=0.02,
    warmup_epochs=0.2,
    ema_decay=0.98,
    loader_workers=1,
    augmentation=Augmentation(translate=0.04, scale=(0.9, 1.1), gamma=(0.8, 1.25), contrast=(0.85, 1.15), noise=0.01),
)


WBF, HARD = Consensus(), Labels()


@dataclass(frozen=True)
class Option:
    """One way to train on the readers' boxes; `truth` is the true boxes instead."""

    consensus: Consensus = WBF
    labels: Labels = HARD
    truth: bool = False


BASE = "hard labels, WBF 0.5"
OPTIONS = {
    BASE: Option(),
    "the truth": Option(truth=True),
    "WBF 0.3": Option(Consensus(iou=0.3)),
    "NMS 0.5": Option(Consensus(method="nms")),
    "no consensus": Option(Consensus(method="none")),
    "two readers or more": Option(Consensus(min_readers=2)),
    "lone boxes ignored": Option(labels=Labels(ignore_lone=True)),
    "weighted by agreement": Option(labels=Labels(confidence="agreement")),
    "weighted by probability": Option(labels=Labels(confidence="probability")),
    "sigmoid, hard": Option(labels=Labels(multi_label=True)),
    "sigmoid, agreement": Option(labels=Labels(multi_label=True, confidence="agreement")),
    "sigmoid, probability": Option(labels=Labels(multi_label=True, confidence="probability")),
}


def measure() -> Iterator[Figure]:
    """Train with each option and seed, and score the models on the true lesions of held-out phantoms."""
    seeds = [int(seed) for seed in os.environ.get("CARINA_BENCH_SEEDS", "0").split(",")]
    chosen = os.environ.get("CARINA_BENCH_LABELS", "; ".join(OPTIONS)).split(";")
    phantoms = [_phantom(number) for number in range(TRAINING + HELD_OUT)]
    truth = _dataset([_annotate(phantom, None) for phantom in phantoms[TRAINING:]], phantoms[TRAINING:], "val")
    for seed in seeds:
        base: EvaluationSet | None = None
        for name in map(str.strip, chosen):
            found = _found(name, seed, phantoms, truth)
            material = to_material(truth, truth.images, found)
            interval = bootstrap(material, SAMPLES, 0)["map"]
            assert interval is not None
            gain = paired_gain(base, material, samples=SAMPLES, seed=0) if base else None
            base = material if name == BASE else base
            against = f", gain {gain.gain:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]" if gain else ""
            mean = evaluate_voc(material).mean_ap or 0.0
            yield Figure(f"{name}, seed {seed}: mAP@0.4 [{interval.low:.3f}, {interval.high:.3f}]{against}", mean)


def read_boxes(phantoms: Sequence[Phantom]) -> Annotations:
    """Return the boxes that the simulated readers draw."""
    return Annotations(
        CATEGORIES, tuple(_annotate(phantom, expected_lesions(balanced=True)) for phantom in phantoms), {}
    )


def _found(name: str, seed: int, phantoms: Sequence[Phantom], truth: Dataset) -> dict[int, Boxes]:
    """Return the detections of a trained model on the held-out images."""
    file = KEPT / f"{name.replace(' ', '_').replace(',', '')}-{seed}.npz"
    if not file.exists():
        detector = _train(OPTIONS[name], seed, phantoms[:TRAINING])
        rows = []
        for image in truth.images:
            own = boxes_of(image, detector.detect([detector.fit_to_canvas(_pixels(image))])[0])
            columns = np.column_stack((own.category_ids, own.boxes_xyxy, own.scores)).reshape(-1, 6)
            rows.append(np.column_stack((np.full(len(columns), image.image_id), columns)))
        np.savez(file, rows=np.concatenate(rows))
    rows = np.load(file)["rows"]
    mine = [rows[rows[:, 0] == image.image_id] for image in truth.images]
    return {
        image.image_id: Boxes(own[:, 1].astype(np.int64), own[:, 2:6], own[:, 6])
        for image, own in zip(truth.images, mine, strict=True)
    }


def _train(option: Option, seed: int, phantoms: Sequence[Phantom]) -> Detector:
    if option.truth:
        annotations = Annotations(CATEGORIES, tuple(_annotate(phantom, None) for phantom in phantoms), {})
    else:
        annotations = agree(listen(read_boxes(phantoms), option.consensus), option.consensus)
        if option.consensus.method != "none":
            annotations = with_probabilities(annotations, fit_readers(annotations))
    dataset = _dataset(annotations.images, phantoms, "train")
    config = CONFIG.model_copy(update={"seed": seed, "labels": option.labels})
    card = draft_card(config, dataset, "labels")
    _, shipped = load_demo_model()
    weights = decode_weights(shipped)

    def initialise(model: torch.nn.Module) -> None:
        initial_weights.fill(model, weights, card)

    card, trained = fit(
        config, dataset, card, initialise, _pixels, Ranks(0, 1, torch.device("cpu")), RecordingCheckpointer()
    )
    return Detector(card.model_copy(update={"score_threshold": 0.001}), trained)


def _annotate(phantom: Phantom, expected: Sequence[float] | None) -> AnnotatedImage:
    name = f"{phantom.seed:06d}"
    if expected is None:
        return AnnotatedImage(name, tuple(Box(each.class_id, each.box_xyxy_px, ()) for each in phantom.lesions))
    drawn = read_phantom(phantom, expected, np.random.default_rng((phantom.seed, 0x4EAD)))
    boxes = [Box(class_id, box, (reader,)) for reader, own in drawn.items() for class_id, box in own]
    return AnnotatedImage(name, tuple(boxes), READERS)


def _dataset(images: Sequence[AnnotatedImage], phantoms: Sequence[Phantom], split: Split) -> Dataset:
    described = tuple(_describe(image, phantom, split) for image, phantom in zip(images, phantoms, strict=True))
    return Dataset("hard phantoms", "0" * 64, RENDITION_VERSION, CATEGORIES, described)


def _describe(image: AnnotatedImage, phantom: Phantom, split: Split) -> DatasetImage:
    probabilities = np.array([np.nan if box.probability is None else box.probability for box in image.boxes])
    drew = tuple(box.readers for box in image.boxes)
    return DatasetImage(
        image_id=phantom.seed,
        sha256=image.file_name,
        rendition_sha256=image.file_name,
        height_px=HEIGHT_PX,
        width_px=WIDTH_PX,
        rendition_height_px=HEIGHT_PX,
        rendition_width_px=WIDTH_PX,
        patient=None,
        split=split,
        category_ids=np.array([box.category_id for box in image.boxes], np.int64),
        boxes_xyxy_px=np.array([box.xyxy_px for box in image.boxes], np.float32).reshape(-1, 4),
        readers=image.readers,
        box_readers=drew if all(drew) else (),
        probabilities=None if np.isnan(probabilities).all() else probabilities,
    )


def _phantom(seed: int) -> Phantom:
    """Return a phantom, drawn once."""
    picture, described = KEPT / "images" / f"{seed:06d}.png", KEPT / "images" / f"{seed:06d}.json"
    if not described.exists():
        picture.parent.mkdir(parents=True, exist_ok=True)
        drawn = make_hard_phantom(seed, HEIGHT_PX, WIDTH_PX, balanced=True)
        cv2.imwrite(str(picture), np.rint(255 * drawn.pixels).astype(np.uint8))
        rows: list[Any] = [(each.class_id, each.box_xyxy_px, each.contrast) for each in drawn.lesions]
        described.write_text(json.dumps(rows))
    lesions = tuple(
        Lesion(class_id, CLASS_NAMES[class_id], tuple(box), contrast)
        for class_id, box, contrast in json.loads(described.read_text())
    )
    return Phantom(seed, np.zeros((HEIGHT_PX, WIDTH_PX), np.float32), lesions)


def _pixels(image: DatasetImage) -> NDArray[np.uint8]:
    picture: Path = KEPT / "images" / f"{image.image_id:06d}.png"
    return np.asarray(cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE), np.uint8)
