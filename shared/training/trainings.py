"""Queues trainings, for the API and for schedules.

A run copies its dataset, config and gate; later changes of these do not affect it.
"""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.detector.architectures import ARCHITECTURES
from shared.erasure import require_whole
from shared.errors import InvalidRequest, NotFound, NotReady, RequestError
from shared.models import registry
from shared.object_store import ObjectStore, weights_key
from shared.tables import Dataset, Model, TrainingRun
from shared.training import datasets
from shared.training.config import GateConfig, HeldOut, TrainingConfig
from shared.vocabulary.states import TaskState

_MODEL = "model:"
#: Maximum number of classes that a note lists.
_NAMED = 15
_EVALUATED_ON = "gate.evaluation_dataset_id"


class AlreadyStarted(RequestError):
    """The schedule's run for this time has been started already."""

    code = "already_started"
    status = 409


def start_training(
    session: Session,
    *,
    dataset: Dataset,
    config: TrainingConfig,
    gate: GateConfig | None = None,
    name: str | None = None,
    schedule_id: UUID | None = None,
    due_at: datetime | None = None,
) -> TrainingRun:
    """Queue a training in the dataset's project and return its row.

    The split on which the gate evaluates is added to the held-out splits, so that the model is not trained on its
    images. Raises `NotReady` unless the dataset's import has succeeded, the errors of `check_config` and `check_gate`,
    and `AlreadyStarted` if the schedule already has a run for this time.
    """
    if dataset.state != TaskState.SUCCEEDED:
        raise NotReady(f"The dataset {dataset.id} is {dataset.state}.")
    require_whole(dataset)
    check_gate(session, dataset.project_id, gate)
    config = hold_out(config, gate)
    _require_something_to_learn(session, dataset, config)
    initial_model_id = check_config(session, dataset.project_id, config)
    queued = (
        insert(TrainingRun)
        .values(
            project_id=dataset.project_id,
            name=name or dataset.name,
            dataset_id=dataset.id,
            config=config.model_dump(mode="json"),
            config_digest=config.digest,
            gate=sa.null() if gate is None else gate.model_dump(mode="json"),
            initial_model_id=initial_model_id,
            notes=_compare_classes(session, dataset, initial_model_id),
            schedule_id=schedule_id,
            due_at=due_at,
        )
        .on_conflict_do_nothing(index_elements=["schedule_id", "due_at"])
        .returning(TrainingRun)
    )
    run = session.scalar(queued)
    if run is None:
        raise AlreadyStarted
    return run


def _compare_classes(session: Session, dataset: Dataset, model_id: UUID | None) -> list[str]:
    """Return notes about the classes that the initial model or the dataset lacks."""
    if model_id is None:
        return []
    base = session.get_one(Model, model_id)
    theirs = [category["name"] for category in base.card["categories"]]
    ours = [category["name"] for category in (dataset.summary or {}).get("classes", [])]
    if not ours:
        return []
    new = _without(ours, theirs)
    lost = _without(theirs, ours)
    notes = []
    if new:
        notes.append(f"The model to start from, {base.name}, lacks {_list(new)}: learnt from scratch.")
    if lost:
        notes.append(f"The dataset has no class {_list(lost)}: unlike {base.name}, the new model will not find it.")
    return notes


def _without(names: list[str], others: list[str]) -> list[str]:
    known = {name.casefold() for name in others}
    return [name for name in names if name.casefold() not in known]


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _require_something_to_learn(session: Session, dataset: Dataset, config: TrainingConfig) -> None:
    """Raise `InvalidRequest` if the training split is held out or has no box."""
    for held in config.held_out:
        other = session.get(Dataset, held.dataset_id)
        if held.split == "train" and other is not None and dataset.digest == other.digest:
            raise InvalidRequest("A dataset cannot be used for training and be held out.", parameter="dataset")
    if count_in_split(dataset, "train", "boxes") == 0:
        raise InvalidRequest(
            f"The dataset {dataset.name} has no box in its training split, so nothing can be learnt from it.",
            parameter="dataset",
        )


def count_in_split(dataset: Dataset, split: str, what: str) -> int | None:
    """Return how many `images` or `boxes` a split of a dataset has; None if its summary does not contain that."""
    found = (dataset.summary or {}).get("splits", {}).get(split, {}).get(what)
    return None if found is None else int(found)


def check_schedule(
    session: Session, project_id: UUID, config: TrainingConfig, gate: GateConfig | None, dataset_name: str
) -> None:
    """Check the config and the gate; also raise `InvalidRequest` if a run would hold out its own training split."""
    check_config(session, project_id, config)
    check_gate(session, project_id, gate)
    latest = datasets.latest(session, project_id, dataset_name)
    for held in hold_out(config, gate).held_out:
        other = session.get_one(Dataset, held.dataset_id)
        is_same = other.name == dataset_name or (latest is not None and latest.digest == other.digest)
        if held.split == "train" and is_same:
            raise InvalidRequest(
                f"The training split of {other.name} is trained on, so no gate can evaluate on it. "
                "Choose the split val or test, or another dataset.",
                parameter=_EVALUATED_ON,
            )


def hold_out(config: TrainingConfig, gate: GateConfig | None) -> TrainingConfig:
    """Return the config with the gate's evaluation split added to the held-out splits."""
    if gate is None:
        return config
    met = HeldOut(dataset_id=gate.evaluation_dataset_id, split=gate.evaluation.split)
    return config if met in config.held_out else config.model_copy(update={"held_out": (*config.held_out, met)})


def check_config(session: Session, project_id: UUID, config: TrainingConfig) -> UUID | None:
    """Return the id of the initial model, if the config names one.

    Raises `NotFound` if a model or dataset is missing, `NotReady`, `DatasetErased`, and `InvalidRequest` if the model
    does not fit.
    """
    for held in config.held_out:
        _require_dataset(session, project_id, held.dataset_id, "config.held_out")
    if not config.initial_weights.startswith(_MODEL):
        return None
    try:
        model_id = UUID(config.initial_weights.removeprefix(_MODEL))
    except ValueError as exc:
        said = f"{config.initial_weights} names no model: the id is malformed."
        raise InvalidRequest(said, parameter="config.initial_weights") from exc
    model = registry.require(session, model_id, parameter="config.initial_weights")
    theirs = ARCHITECTURES.get(model.card.get("architecture", config.architecture))
    if theirs is None or theirs.imagenet_file != ARCHITECTURES[config.architecture].imagenet_file:
        said = (
            f"The model {model_id} is a {model.card['architecture']}; its weights do not fit {config.architecture}. "
            "Choose the same architecture."
        )
        raise InvalidRequest(said, parameter="config.initial_weights")
    return model_id


def require_weights(store: ObjectStore, config: TrainingConfig) -> None:
    """Raise `NotFound` if the config refers to weights that are missing in the object store."""
    kind, _, sha256 = config.initial_weights.partition(":")
    if kind == "object" and not store.has(weights_key(sha256)):
        said = f"The object store holds no {weights_key(sha256)} to start from."
        raise NotFound(said, parameter="config.initial_weights")


def check_gate(session: Session, project_id: UUID, gate: GateConfig | None) -> None:
    """Raise `NotFound`, `NotReady`, `DatasetErased` or `InvalidRequest` for a gate that can never decide."""
    if gate is None:
        return
    _require_dataset(session, project_id, gate.evaluation_dataset_id, "gate.evaluation_dataset_id")
    dataset = session.get_one(Dataset, gate.evaluation_dataset_id)
    if count_in_split(dataset, gate.evaluation.split, "images") == 0:
        said = f"The gate would evaluate on the split {gate.evaluation.split} of {dataset.name}, which holds no image."
        raise InvalidRequest(said, parameter="gate.evaluation.split")
    if gate.evaluation.bootstrap_samples < 1:
        said = "A gate decides by a bootstrap: its evaluation needs at least one resample."
        raise InvalidRequest(said, parameter="gate.evaluation.bootstrap_samples")


def _require_dataset(session: Session, project_id: UUID, dataset_id: UUID, parameter: str) -> None:
    dataset = datasets.find(session, project_id, str(dataset_id), parameter=parameter)
    if dataset.state != TaskState.SUCCEEDED:
        raise NotReady(f"The dataset {dataset_id} is {dataset.state}.", parameter=parameter)
    require_whole(dataset)
