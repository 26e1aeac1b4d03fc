"""Queues evaluations that are requested through the API. `trainer.training` queues the one that follows a training."""

from uuid import UUID

from sqlalchemy.orm import Session

from shared.erasure import require_whole
from shared.errors import InvalidRequest, NotFound, NotReady
from shared.models import registry
from shared.tables import Dataset, Evaluation
from shared.training.config import EvaluationConfig
from shared.training.trainings import count_in_split
from shared.vocabulary.states import TaskState


def start_evaluation(
    session: Session, *, model_id: UUID | None, dataset: Dataset, config: EvaluationConfig
) -> Evaluation:
    """Queue an evaluation of a model, by default the active one, in the dataset's project; return its row.

    Raises `NotFound` if the model does not exist, `NotReady` unless the dataset's import has succeeded,
    `DatasetErased`, and `InvalidRequest` for an empty split.
    """
    model = registry.active(session) if model_id is None else registry.require(session, model_id, parameter="model")
    if model is None:
        raise NotFound("No model is active.")
    if dataset.state != TaskState.SUCCEEDED:
        raise NotReady(f"The dataset {dataset.id} is {dataset.state}.")
    require_whole(dataset)
    if count_in_split(dataset, config.split, "images") == 0:
        raise InvalidRequest(f"The split {config.split} of {dataset.name} holds no image.", parameter="config.split")
    evaluation = Evaluation(
        project_id=dataset.project_id,
        model_id=model.id,
        dataset_id=dataset.id,
        config=config.model_dump(mode="json"),
    )
    session.add(evaluation)
    session.flush()
    session.refresh(evaluation)
    return evaluation
