"""Hints wake workers; losing them loses nothing, and a server that is down holds nobody up."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import redis
import sqlalchemy as sa
from pydantic import SecretStr

from shared.database import Database
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import Worker
from shared.vocabulary.states import JobState, WorkerKind
from tests.integration.workshop import Workshop, grey_image
from workers.sweep import sweep


@pytest.fixture
def queues(settings: Settings) -> redis.Redis:
    """This test's Redis."""
    return redis.Redis.from_url(settings.redis_url.get_secret_value())


def add_workers(database: Database, count: int, stage: WorkerKind = WorkerKind.DETECT, **columns: object) -> None:
    with database.begin() as session:
        session.add_all(Worker(id=f"{stage}-{number}-{columns}", stage=stage, **columns) for number in range(count))


def test_hints_fan_out_to_workers_but_not_beyond_the_batches(
    settings: Settings, database: Database, hints: Hints, queues: redis.Redis
) -> None:
    hour_ago = sa.func.now() - sa.text("interval '1 hour'")
    add_workers(database, 3)
    add_workers(database, 2, seen_at=hour_ago)
    add_workers(database, 2, stopped_at=sa.func.now())
    add_workers(database, 2, WorkerKind.PREPARE)
    sizes = (0, 1, settings.batch_size, settings.batch_size + 1, 100 * settings.batch_size)
    for waiting, expected in zip(sizes, (0, 1, 1, 2, 3), strict=True):
        queues.delete(WorkerKind.DETECT)
        assert hints.send(WorkerKind.DETECT, waiting) == expected
        assert queues.llen(WorkerKind.DETECT) == expected


def test_a_hint_that_nobody_took_stands_for_the_next_one_too(hints: Hints, queues: redis.Redis) -> None:
    assert [hints.send(WorkerKind.PREPARE, 1) for _ in range(3)] == [1, 0, 0]
    queues.lpop(WorkerKind.PREPARE)
    assert hints.send(WorkerKind.PREPARE, 1) == 1


def test_a_sweep_hints_again_after_redis_was_wiped(workshop: Workshop, queues: redis.Redis) -> None:
    workshop.rows(3, JobState.READY)
    workshop.hints.send(WorkerKind.DETECT, 3)
    queues.flushall()
    sweep(workshop.settings, workshop.database, workshop.hints, "beat")
    assert queues.llen(WorkerKind.DETECT) == 1
    assert queues.llen(WorkerKind.PREPARE) == 0


def accepted(server: socket.socket) -> int:
    """Accept and close what waits for this server; return how many connections that were."""
    server.setblocking(False)
    number = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            number += 1
    return number


def test_a_redis_that_gives_no_answer_holds_up_one_sender_once(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.queue.hints.QUIET_S", 3600)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = SecretStr(f"redis://127.0.0.1:{deaf.getsockname()[1]}/0")
        hints = Hints(settings.model_copy(update={"redis_url": url}), database)
        assert hints.send(WorkerKind.DETECT, 1) == 0  # after the socket's timeout
        connections = accepted(deaf)
        assert connections
        assert [hints.send(WorkerKind.DETECT, 1) for _ in range(3)] == [0] * 3
        assert not accepted(deaf), "the next senders do not ask"


def test_the_same_hint_delivered_to_several_workers_gives_one_result(workshop: Workshop, tiny_model_id: object) -> None:
    jobs = workshop.ready(*(grey_image(number) for number in range(20)))
    start = threading.Barrier(3)

    def wake(_: int) -> None:
        with workshop.detecting(batch_size=3) as detect:
            start.wait()
            detect.run()
            detect.run()

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(wake, range(3)))
    assert workshop.states(jobs) == ["succeeded"] * 20
    assert [workshop.job(job_id).attempt for job_id in jobs] == [1] * 20
    assert [[row.rank for row in workshop.found(job_id)] for job_id in jobs] == [[0, 1, 2]] * 20
