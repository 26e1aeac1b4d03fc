"""Stores the report of an evaluation: with the evaluation, and again after the gate's decision."""

import hashlib
from datetime import UTC, datetime

from shared.detector.card import ModelCard
from shared.object_store import ObjectStore, result_key
from shared.training.config import Split
from shared.version import code_version
from trainer.datasets.dataset import Dataset
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.report import Decision, render_report
from trainer.evaluation.summary import Summary
from trainer.rendition_reader import RenditionReader


def store_report(
    store: ObjectStore,
    read: RenditionReader,
    *,
    card: ModelCard,
    dataset: Dataset,
    split: Split,
    material: EvaluationSet,
    summary: Summary,
    decision: Decision | None = None,
) -> str:
    """Render and store the report of a model's evaluation on a split. Returns its SHA-256."""
    facts: dict[str, str | int] = {
        "Model": card.name,
        "Model digest": card.digest,
        "Dataset": dataset.name,
        "Dataset digest": dataset.digest,
        "Split": split,
        "Rendition version": dataset.rendition_version,
        "Code version": code_version(),
        "Date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    image_of = {image.image_id: image for image in dataset.of(split).images}
    page = render_report(material, summary, lambda image_id: read(image_of[image_id]), facts, decision).encode()
    sha256 = hashlib.sha256(page).hexdigest()
    store.put(result_key(sha256, "html"), page)
    return sha256
