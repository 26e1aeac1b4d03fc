"""An evaluation gives the same numbers however many ranks share it, and never meets what a model has learnt from."""

import hashlib
import io
import json
from dataclasses import replace
from uuid import UUID

import pytest
import torch

from shared.database import Database
from shared.detector.card import Category, ModelCard
from shared.detector.demo import load_demo_model
from shared.detector.weights import decode_weights, import_checkpoint
from shared.models import registry
from shared.object_store import ObjectStore, dataset_key, result_key, weights_key
from shared.settings import Settings
from shared.tables import Dataset, Evaluation, TrainingRun
from shared.training.config import EvaluationConfig, HeldOut
from shared.training.tasks import TaskClaim, claim_task
from shared.training.trainings import start_training
from shared.vocabulary.states import TaskState
from tests.integration.cli.test_commands import Command
from tests.integration.rows import home
from tests.integration.trainers import trainer, wait_for_task
from tests.tiny_dataset import store_dataset
from tests.tiny_images import tiny_config, tiny_dataset
from tests.tiny_model import CATEGORIES, make_tiny_model
from trainer.evaluate import (
    ClassesDiffer,
    EvaluationFailed,
    EvaluationMeetsTraining,
    EvaluationPending,
    evaluate_model,
    evaluated_categories,
    missing_classes,
    name_as_dataset,
    refuse_training_images,
)
from trainer.evaluation.storage import decode_boxes
from trainer.initial_weights import fetch
from trainer.lineage import describe_material, read_dataset, training_set
from trainer.task import Work
from trainer.training import recognise


def ask(database: Database, model_id: UUID, dataset: Dataset, config: EvaluationConfig) -> UUID:
    with database.begin() as session:
        row = Evaluation(
            project_id=home(session), model_id=model_id, dataset_id=dataset.id, config=config.model_dump(mode="json")
        )
        session.add(row)
        session.flush()
        return row.id


@pytest.fixture
def demo_id(database: Database, store: ObjectStore) -> UUID:
    with database.begin() as session:
        return registry.register(session, store, *load_demo_model()).id


def test_one_rank_and_two_find_the_same_and_say_the_same(
    environ: dict[str, str], settings: Settings, database: Database, store: ObjectStore, demo_id: UUID
) -> None:
    """Three images on two ranks, two at a time: the last pass of one rank holds a single image beside a blank."""
    dataset = store_dataset(database, store, count=12)
    human = {"images": 3, "one_reader": {"0": 0.25, "99": 1.0}, "no_finding": 0.75, "others": {"0": 0.5}}
    with database.begin() as session:
        session.get_one(Dataset, dataset.id).summary = {"human": {"val": human}}
    config = EvaluationConfig(batch_size=2, bootstrap_samples=100)
    done = []
    for processes in (1, 2):
        row_id = ask(database, demo_id, dataset, config)
        with trainer(environ, processes=processes):
            row = wait_for_task(database, Evaluation, row_id, lambda row: TaskState(row.state).is_final, settings)
        assert isinstance(row, Evaluation)
        assert row.state == TaskState.SUCCEEDED, (row.reason, row.log_tail)
        done.append(row)
    alone, shared = done
    assert alone.metrics == shared.metrics
    assert alone.detections_sha256 == shared.detections_sha256
    assert alone.metrics is not None
    assert alone.metrics["images"] == 3, "the split's images alone count"
    assert alone.metrics["map40"]["value"] > 0.5, "the demo model knows phantoms"
    found = decode_boxes(store.read(result_key(str(alone.detections_sha256), "json")))
    assert set(found) == {3, 7, 11}
    report = store.read(result_key(str(alone.report_sha256), "html")).decode()
    assert "carina-demo" in report
    assert "research use" in report.lower()
    assert alone.metrics["human"] == {"images": 3, "one_reader": 0.25, "one_reader_with_no_finding": 0.5, "others": 0.5}
    assert "One reader, mAP@0.4" in report


def test_a_model_is_not_evaluated_on_what_it_or_its_ancestors_have_learnt_from(
    database: Database, store: ObjectStore, demo_id: UUID
) -> None:
    first = store_dataset(database, store, name="first", count=8)
    # Images 4, 8, 12 and 16 are for validation here; the first of them was trained on there.
    second = store_dataset(database, store, name="second", count=16, first=1)
    card, weights = make_tiny_model()
    with database.begin() as session:
        child = registry.register(session, store, card, weights)
        grandchild = registry.register(session, store, card.model_copy(update={"name": "grandchild"}), weights)
        for parent_id, model in ((demo_id, child), (child.id, grandchild)):
            config = tiny_config(initial_weights=f"model:{parent_id}")
            run = start_training(session, dataset=session.get_one(Dataset, first.id), config=config)
            run.model_id = model.id
        session.flush()
        val = read_dataset(session, store, second.id).of("val").images
        for model_id in (child.id, grandchild.id):
            with pytest.raises(EvaluationMeetsTraining, match="learnt from 1 of these"):
                refuse_training_images(session, store, model_id, val)
            refuse_training_images(session, store, model_id, read_dataset(session, store, first.id).of("val").images)
        refuse_training_images(session, store, demo_id, val)


@pytest.mark.parametrize("form", ["renamed", "half", "bfloat", "file"])
def test_a_model_cannot_be_evaluated_on_its_training_images_under_another_name_or_in_another_file(
    database: Database, store: ObjectStore, form: str
) -> None:
    dataset = store_dataset(database, store, count=8)
    card, weights = make_tiny_model()
    state = decode_weights(weights)
    copy_card, copy = {
        "renamed": lambda: (card.model_copy(update={"name": "copy"}), weights),
        "half": lambda: import_checkpoint(saved({k: v.half() for k, v in state.items()}), CATEGORIES, canvas_px=128),
        "bfloat": lambda: import_checkpoint(saved({k: v.bfloat16() for k, v in state.items()}), CATEGORIES),
        "file": lambda: import_checkpoint(saved({"model": {f"module.{k}": v for k, v in state.items()}}), CATEGORIES),
    }[form]()
    other = make_tiny_model(1)
    with database.begin() as session:
        run = start_training(session, dataset=session.get_one(Dataset, dataset.id), config=tiny_config())
        run.model_id = registry.register(session, store, card, weights).id
        copy_id = registry.register(session, store, copy_card, copy).id
        assert copy_id != run.model_id
        other_id = registry.register(session, store, *other).id
        session.flush()
        images = read_dataset(session, store, dataset.id).of("train").images
        with pytest.raises(EvaluationMeetsTraining):
            refuse_training_images(session, store, copy_id, images)
        refuse_training_images(session, store, other_id, images)


def test_a_model_from_another_installation_has_learnt_from_what_its_card_names(
    database: Database, store: ObjectStore
) -> None:
    dataset = store_dataset(database, store, name="films", count=8)
    later = store_dataset(database, store, name="fixed", count=16, first=1)
    card, weights = make_tiny_model()
    with database.begin() as session:
        config = tiny_config(held_out=(HeldOut(dataset_id=later.id, split="val"),))
        run = start_training(session, dataset=session.get_one(Dataset, dataset.id), config=config)
        made = card.model_copy(update={"metrics": {"learnt_from": describe_material(session, run)}})
        session.delete(run)  # as where nobody knows of it
        model_id = registry.register(session, store, made, weights).id
        images = read_dataset(session, store, dataset.id)
        with pytest.raises(EvaluationMeetsTraining, match="learnt from 5 of these"):
            refuse_training_images(session, store, model_id, images.of("train").images)
        refuse_training_images(session, store, model_id, images.of("val").images)
        refuse_training_images(session, store, model_id, read_dataset(session, store, later.id).of("val").images)
        # An older version's card names the dataset alone.
        older = card.model_copy(update={"name": "older", "metrics": {"dataset_digest": dataset.digest}})
        with pytest.raises(EvaluationMeetsTraining, match="learnt from 6 of these"):
            refuse_training_images(
                session, store, registry.register(session, store, older, weights).id, images.of("train").images
            )


def test_weights_in_a_file_are_recognised_as_a_models(
    settings: Settings, database: Database, store: ObjectStore
) -> None:
    dataset = store_dataset(database, store, count=4)
    card, weights = make_tiny_model()
    content = saved({k: v.half() for k, v in decode_weights(weights).items()})
    sha256 = hashlib.sha256(content).hexdigest()
    store.put(weights_key(sha256), content)
    config = tiny_config(initial_weights=f"object:{sha256}")
    with database.begin() as session:
        parent_id = registry.register(session, store, card, weights).id
        first = start_training(session, dataset=session.get_one(Dataset, dataset.id), config=tiny_config())
        first.model_id = parent_id
        run_id = start_training(session, dataset=session.get_one(Dataset, dataset.id), config=config).id
    work = Work(settings, database, store, TaskClaim(kind="training", task_id=run_id, owner="somebody", attempt=1))
    found = recognise(work, fetch(config.initial_weights, config.architecture, database, store), config)
    assert found.card == card
    with database.begin() as session:
        assert session.get_one(TrainingRun, run_id).initial_model_id == parent_id


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_what_is_held_out_is_not_learnt_from(database: Database, store: ObjectStore) -> None:
    dataset = store_dataset(database, store, name="all", count=8)
    fixed = store_dataset(database, store, name="fixed", count=16, first=1)
    config = tiny_config(held_out=(HeldOut(dataset_id=fixed.id, split="val"),))
    with database.begin() as session:
        run = start_training(session, dataset=session.get_one(Dataset, dataset.id), config=config)
        learnt = {image.sha256 for image in training_set(session, store, run).images}
        met = {image.sha256 for image in read_dataset(session, store, fixed.id).of("val").images}
        everything = {image.sha256 for image in read_dataset(session, store, dataset.id).of("train").images}
    assert learnt == everything - met
    assert len(learnt) == len(everything) - 1


def test_what_needs_an_evaluation_waits_for_it_and_reuses_it(
    settings: Settings, database: Database, store: ObjectStore, demo_id: UUID
) -> None:
    dataset = store_dataset(database, store, count=4)
    config = EvaluationConfig()
    with database.begin() as session:
        run = start_training(session, dataset=session.get_one(Dataset, dataset.id), config=tiny_config())
        asking = claim_task(session, "somebody", lease_s=60)
        assert asking == TaskClaim(kind="training", task_id=run.id, owner="somebody", attempt=1)
    work = Work(settings, database, store, asking)
    for _ in range(2):
        with pytest.raises(EvaluationPending):
            evaluate_model(work, demo_id, dataset.id, config)
    with database.begin() as session:
        (row,) = session.query(Evaluation).all()
        row.state = TaskState.FAILED
    with pytest.raises(EvaluationFailed):
        evaluate_model(work, demo_id, dataset.id, config)
    with database.begin() as session:
        session.get_one(Evaluation, row_id(database)).state = TaskState.SUCCEEDED
    assert evaluate_model(work, demo_id, dataset.id, config) == row_id(database)


def row_id(database: Database) -> UUID:
    with database.begin() as session:
        return session.query(Evaluation).one().id


def test_classes_are_matched_by_name_and_take_the_datasets_ids() -> None:
    dataset = tiny_dataset(1)
    card, _ = make_tiny_model()
    categories = (Category(id=3, name="Square"), Category(id=7, name="disc"))
    renamed = name_as_dataset(ModelCard.model_validate({**card.model_dump(), "categories": categories}), dataset)
    assert [(category.id, category.name) for category in renamed.categories] == [(7, "Square"), (8, "disc")]
    other = ModelCard.model_validate({**card.model_dump(), "categories": (Category(id=7, name="disc"),)})
    with pytest.raises(ClassesDiffer):
        name_as_dataset(other, dataset)


def test_a_class_that_the_model_lacks_is_named_and_not_evaluated() -> None:
    dataset = tiny_dataset(4)
    card, _ = make_tiny_model(categories=(Category(id=1, name="Square"), Category(id=2, name="b ar")))
    known = name_as_dataset(card, dataset).categories
    assert [category.name for category in evaluated_categories(known, dataset)] == ["square"]
    (missing,) = missing_classes(known, dataset)
    bars = sum(int((image.category_ids == 3).sum()) for image in dataset.images)
    assert (missing.name, missing.boxes, missing.closest) == ("bar", bars, "b ar")
    assert bars > 0


def test_images_without_a_box_are_evaluated_on_the_classes_of_the_model() -> None:
    card, _ = make_tiny_model()
    for categories in ((), (Category(id=5, name="unknown"),)):
        normals = replace(tiny_dataset(4), categories=categories, images=(tiny_dataset(4).images[3],))
        known = name_as_dataset(card, normals).categories
        assert [category.name for category in evaluated_categories(known, normals)] == ["Mass", "Opacity", "Fibrosis"]
        assert len({category.id for category in (*known, *categories)}) == 3 + len(categories)


@pytest.mark.parametrize("categories", [[], ["Rib fracture"]])
def test_normal_images_are_evaluated(
    environ: dict[str, str],
    settings: Settings,
    database: Database,
    store: ObjectStore,
    demo_id: UUID,
    operator: None,
    carina: Command,
    categories: list[str],
) -> None:
    """As of a table with normal images alone, or a document without categories."""
    whole = store_dataset(database, store, count=8)
    content = json.loads(store.read(dataset_key(str(whole.digest))))
    content |= {"categories": [{"id": n, "name": name} for n, name in enumerate(categories)], "annotations": []}
    document = json.dumps(content).encode()
    digest = hashlib.sha256(document).hexdigest()
    store.put(dataset_key(digest), document)
    with database.begin() as session:
        session.get_one(Dataset, whole.id).digest = digest
    row_id = ask(database, demo_id, whole, EvaluationConfig(batch_size=2, bootstrap_samples=20))
    with trainer(environ):
        row = wait_for_task(database, Evaluation, row_id, lambda row: TaskState(row.state).is_final, settings)
    assert isinstance(row, Evaluation)
    assert row.state == TaskState.SUCCEEDED, (row.reason, row.log_tail)
    assert row.metrics is not None
    assert (row.metrics["images"], row.metrics["images_with_findings"]) == (2, 0)
    assert row.metrics["map40"]["value"] is None
    # The images are phantoms with lesions, that the demo model finds.
    assert row.metrics["normal_films"][0]["false_positives"] > 0
    assert [missing["name"] for missing in row.metrics["missing"]] == categories
    said = carina("evaluation", "show", str(row_id))
    assert "On 2 normal images" in said
    assert ("The model has no class 'Rib fracture'" in said) == bool(categories)
