"""The points of a training's curves: written by a trainer, without gaps or doubles, and never too many."""

import signal
from itertools import pairwise
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database import Database
from shared.detector.families import family_of
from shared.object_store import ObjectStore
from shared.settings import Settings
from shared.tables import Dataset, TrainingPoint, TrainingRun
from shared.training.trainings import start_training
from shared.vocabulary.states import TaskState
from tests.integration.conftest import Api, Keys
from tests.integration.rows import add_dataset
from tests.integration.trainers import trainer, wait_for_task
from tests.tiny_dataset import store_dataset
from tests.tiny_images import tiny_config
from trainer.curve import AP40, Curve

#: A checkpoint after every step.
OFTEN = 1e-4


@pytest.fixture
def run_id(database: Database) -> UUID:
    with database.begin() as session:
        run = start_training(session, dataset=add_dataset(session), config=tiny_config())
        return run.id


def points_of(session: Session, run_id: UUID) -> list[TrainingPoint]:
    mine = sa.select(TrainingPoint).where(TrainingPoint.training_run_id == run_id)
    return list(session.scalars(mine.order_by(TrainingPoint.step)))


def test_a_point_is_the_mean_since_the_one_before(database: Database, run_id: UUID) -> None:
    curve = Curve(run_id)
    with database.begin() as session:
        curve.go_back(session, 0)
        curve.add({"loss": 2.0})
        curve.add({"loss": 4.0})
        curve.write(session, step=2, epoch=0.5)
        curve.add({"loss": 1.0, AP40: 0.25})
        curve.write(session, step=3, epoch=1.0)
        found = [(point.step, point.epoch, point.values) for point in points_of(session, run_id)]
    assert found == [(2, 0.5, {"loss": 3.0}), (3, 1.0, {"loss": 1.0, AP40: 0.25})]


def test_a_long_run_is_thinned_out_evenly_and_keeps_what_was_measured(
    database: Database, run_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.curve.MAX_POINTS", 200)
    monkeypatch.setattr("trainer.curve.KEPT_OF_A_KIND", 50)
    curve = Curve(run_id)
    with database.begin() as session:
        curve.go_back(session, 0)
        for step in range(1, 202):
            curve.add({"loss": step} | ({AP40: 0.5} if step % 10 == 5 else {}))
            curve.write(session, step=step, epoch=step / 100)
        kept = [(point.step, AP40 in point.values) for point in points_of(session, run_id)]
    steps = [step for step, measured in kept if not measured]
    assert 40 < len(steps) <= 50
    assert max(after - before for before, after in pairwise(steps)) <= 9
    assert [step for step, measured in kept if measured] == list(range(5, 202, 10))
    assert kept[-1] == (201, False)


def test_a_killed_run_goes_on_with_its_curve(
    environ: dict[str, str],
    settings: Settings,
    database: Database,
    store: ObjectStore,
    api: Api,
    keys: Keys,
) -> None:
    dataset = store_dataset(database, store, count=16)
    config = tiny_config(epochs=3, batch_size=3, checkpoint_every_min=OFTEN)
    with database.begin() as session:
        run_id = start_training(session, dataset=session.get_one(Dataset, dataset.id), config=config).id

    def is_final(row: object) -> bool:
        assert isinstance(row, TrainingRun)
        return TaskState(row.state).is_final

    def has_begun(row: object) -> bool:
        assert isinstance(row, TrainingRun)
        return (row.checkpoint_steps or 0) >= 5 or is_final(row)

    with trainer(environ) as running:
        wait_for_task(database, TrainingRun, run_id, has_begun, settings)
        running.rank().send_signal(signal.SIGKILL)
        ended = wait_for_task(database, TrainingRun, run_id, is_final, settings)
    assert ended.state == TaskState.SUCCEEDED, (ended.reason, ended.log_tail)
    assert ended.attempt == 2
    answer = api.as_(keys.read).get(f"/v1/trainings/{run_id}/points").get_json()
    assert answer["attempt"] == 2
    points = answer["points"]
    steps = [point["step"] for point in points]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12
    assert {4, 8, 12} <= set(steps), "one at the end of each epoch"
    for point in points:
        assert set(point["values"]) - {AP40} == {*family_of("carina_small").loss_names, "loss", "learning_rate"}
    assert [point["epoch"] for point in points if AP40 in point["values"]] == [1, 2, 3]
    assert ended.progress[AP40] == points[-1]["values"][AP40]
    later = api.as_(keys.read).get(f"/v1/trainings/{run_id}/points", after=8).get_json()["points"]
    assert [point["step"] for point in later] == [step for step in steps if step > 8]
