"""Groups of machines train, lose machines, and end with the weights of undisturbed groups."""

import signal
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa

from deploy.cli.doctor_api import CheckFailed
from deploy.cli.doctor_group import check_group
from shared.database import Database
from shared.errors import InvalidSettings
from shared.object_store import ObjectStore
from shared.settings import Settings
from shared.tables import Dataset, Task, TrainingRun
from shared.training.config import TrainingConfig
from shared.training.groups import Membership, mark_machine
from shared.vocabulary.states import TaskState
from tests.integration.trainers import Trainer, trainer, wait_for_task
from tests.integration.training.test_trainer import OFTEN, begin, is_final, steps, weights_of
from tests.networks import WHY_NOT, network
from tests.ports import free_port
from tests.tiny_dataset import store_dataset
from tests.tiny_images import tiny_config
from trainer.group import Group
from trainer.launch import torchrun
from trainer.probe_port import ProbePort

CONFIG = tiny_config(epochs=6, batch_size=3, checkpoint_every_min=OFTEN, evaluate_split=None)


@pytest.fixture
def dataset(database: Database, store: ObjectStore) -> Dataset:
    return store_dataset(database, store, count=16)


class Run:
    """One training, and what can be waited for."""

    def __init__(
        self, settings: Settings, database: Database, dataset: Dataset, config: TrainingConfig = CONFIG
    ) -> None:
        self._settings, self._database = settings, database
        self.id: UUID = begin(database, dataset, config).id

    def wait_for_steps(self, count: int) -> TrainingRun:
        """Wait for a checkpoint after this many steps."""
        row = self.wait(lambda row: steps(row) >= count or is_final(row))
        assert row.state == TaskState.RUNNING, (row.reason, row.log_tail)
        return row

    def wait(self, condition: Callable[[Task], bool]) -> TrainingRun:
        row = wait_for_task(self._database, TrainingRun, self.id, condition, self._settings)
        assert isinstance(row, TrainingRun)
        return row

    def end(self) -> TrainingRun:
        return self.wait(is_final)


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_two_groups_lose_a_machine_each_and_end_with_the_undisturbed_weights(
    environ: dict[str, str], settings: Settings, database: Database, dataset: Dataset
) -> None:
    """Two groups of two machines and three single trainers, each machine with an address of its own."""
    with network(environ, 4) as machines, ExitStack() as stack:

        def start(group: int, node: int) -> Trainer:
            index = 2 * group + node
            more = {
                "trainer_nodes": "2",
                "trainer_node_rank": str(node),
                "trainer_rendezvous": f"{machines.address(2 * group)}:29400",
                "trainer_group": "ab"[group],
            }
            return stack.enter_context(trainer(machines.environ(index), **more))

        first, second = Run(settings, database, dataset), Run(settings, database, dataset)
        start(0, 0)
        row = first.wait(lambda row: "waiting" in row.progress)
        assert row.progress["waiting"] == "waiting for 1 of 2 machines of the group a"
        assert row.state == TaskState.RUNNING
        leader_b = start(1, 0)
        second.wait(lambda row: "waiting" in row.progress)
        single = stack.enter_context(ExitStack())
        for _ in range(3):
            single.enter_context(trainer(environ))
        follower_a = start(0, 1)
        start(1, 1)
        alone = Run(settings, database, dataset, tiny_config(epochs=1, evaluate_split=None))
        first.wait_for_steps(3)
        follower_a.kill()
        second.wait_for_steps(3)
        leader_b.kill()
        at = first.wait(lambda row: row.losses > 0 or is_final(row))
        assert at.code == "trainer_process_lost"
        assert at.reason is not None
        assert machines.address(1) in at.reason, "names the lost machine, not its peer"
        assert "eta_s" not in at.progress
        start(1, 0)
        start(0, 1)
        ended = [first.end(), second.end()]
        assert [(row.trainer_group, row.progress["ranks"]) for row in ended] == [("a", 2), ("b", 2)]
        for row, node in zip(ended, (1, 3), strict=True):
            assert f"[{machines.address(node)}] " in row.log_tail
        row = alone.end()
        assert (row.trainer_group, row.progress["ranks"]) == (None, 1)
        single.close()  # another group of two trains the undisturbed run
        undisturbed = Run(settings, database, dataset).end()
        assert (undisturbed.attempt, undisturbed.progress["ranks"]) == (1, 2)
        assert {weights_of(database, row) for row in ended} == {weights_of(database, undisturbed)}


def test_an_elastic_group_goes_on_with_the_machines_that_are_there(
    environ: dict[str, str], settings: Settings, database: Database, dataset: Dataset
) -> None:
    """Both machines are this one: each has a trainer, and they meet at an address of loopback."""
    together = {
        "trainer_nodes": "1:2",
        "trainer_rendezvous": f"127.0.0.1:{free_port()}",
        "trainer_join_timeout_s": "5",
    }
    run = Run(settings, database, dataset, CONFIG.model_copy(update={"epochs": 1000}))
    with trainer(environ, **together, trainer_node_rank="1") as second, trainer(environ, **together) as leader:
        run.wait(lambda row: row.progress.get("ranks") == 2 and steps(row) > 1)
        rank = second.rank()
        rank.send_signal(signal.SIGKILL)
        row = run.wait(lambda row: row.losses > 0)
        assert "was killed by signal 9" in (row.reason or ""), row.reason
        row = run.wait(lambda row: row.attempt == 2 and row.progress.get("ranks") == 2)
        # The machine is shut down: the group stores a checkpoint, and goes on without it.
        assert second.stop() == 0
        before = run.wait(lambda row: row.attempt == 3)
        assert (before.code, before.losses) == (None, 0)
        row = run.wait(lambda row: row.progress.get("ranks") == 1)
        assert steps(row) >= steps(before)
        with trainer(environ, **together, trainer_node_rank="1"):
            row = run.wait(lambda row: row.progress.get("ranks") == 2)
            assert (row.state, row.attempt, row.losses) == (TaskState.RUNNING, 4, 0)
            assert leader.stop() == 0
            row = run.wait(lambda row: row.lease_owner is None)
            assert (row.state, row.losses) == (TaskState.INTERRUPTED, 0)


def test_a_training_whose_group_stays_incomplete_goes_to_another_trainer(
    environ: dict[str, str], settings: Settings, database: Database, dataset: Dataset
) -> None:
    run = Run(settings, database, dataset, tiny_config(epochs=1, evaluate_split=None))
    group = {"trainer_nodes": "2", "trainer_rendezvous": "127.0.0.1:29400", "trainer_join_timeout_s": "1"}
    with trainer(environ, **group):
        row = run.wait(lambda row: row.state == TaskState.QUEUED and "waiting" in row.progress)
        assert (row.attempt, row.losses, row.code) == (0, 0, None), "waiting takes no attempt"
        with trainer(environ):
            ended = run.end()
    assert (ended.state, ended.trainer_group, ended.attempt) == (TaskState.SUCCEEDED, None, 1)


def test_the_doctor_tries_the_ways_between_the_machines(
    environ: dict[str, str], settings: Settings, database: Database
) -> None:
    leader, rendezvous, here = ProbePort(), ProbePort(), ProbePort()
    address = f"127.0.0.1:{rendezvous.port}"
    group = {"CARINA_TRAINER_NODES": "2", "CARINA_TRAINER_RENDEZVOUS": address, "CARINA_TRAINER_NODE_RANK": "1"}
    own = Settings.from_env(environ | group)
    with pytest.raises(CheckFailed, match="0 of 2 machines of the group"):
        check_group(own, database)
    later = sa.func.now() + timedelta(hours=1)  # they stay alive, however slow this machine is
    with database.begin() as session:
        for rank, port in enumerate((leader, here)):
            mark_machine(session, Membership(address, rank, str(rank), "127.0.0.1", port.port), seen_at=later)
    assert check_group(own, database).startswith("2 machines of the group")
    rendezvous.close()
    with pytest.raises(CheckFailed, match=f"the rendezvous at {address} cannot be reached"):
        check_group(own, database)
    leader.close()
    with pytest.raises(
        CheckFailed, match=rf"machine 0 at 127.0.0.1:{leader.port} cannot be reached \(Connection refused"
    ):
        check_group(own, database)
    with pytest.raises(CheckFailed, match=r"192\.0\.2\.7 is no address of this machine"):
        check_group(own.model_copy(update={"trainer_address": "192.0.2.7"}), database)
    elsewhere = {"trainer_address": "127.0.0.1", "trainer_rendezvous": "192.0.2.7:29400"}
    with pytest.raises(CheckFailed, match="cannot be reached by others"):
        check_group(own.model_copy(update=elsewhere), database)
    here.close()


def test_numbers_of_machines_are_checked_with_the_settings(environ: dict[str, str]) -> None:
    several = {"CARINA_TRAINER_RENDEZVOUS": "leader:29400"}
    assert Settings.from_env(environ).node_counts == (1, 1)
    for nodes, counts in {"2": (2, 2), "2:4": (2, 4), "1:2": (1, 2)}.items():
        assert Settings.from_env(environ | several | {"CARINA_TRAINER_NODES": nodes}).node_counts == counts
    for wrong in ("0", "4:2", "2:", "two", "2:4:6"):
        with pytest.raises(InvalidSettings):
            Settings.from_env(environ | several | {"CARINA_TRAINER_NODES": wrong})
    with pytest.raises(InvalidSettings):
        Settings.from_env(environ | {"CARINA_TRAINER_NODES": "2"})


def test_the_ranks_use_the_interface_of_their_machines_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    group = Group("a", "127.0.0.1:29400", node_rank=1, least=2, most=2, address="127.0.0.1")
    assert group.environ() == {"NCCL_SOCKET_IFNAME": "lo"}, "an interface that is set is not replaced"
    command = torchrun(2, "run-1", ["module"], group=group, node=1, machines=2, join_s=90)
    assert {"--nnodes=2", "--node-rank=1", "--local-addr=127.0.0.1", "--rdzv-endpoint=127.0.0.1:29400"} <= set(command)
