"""Whatever is killed, and whenever: every job ends once, with the result that an undisturbed run has."""

import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import boto3
import httpx
import psutil
import pytest
import redis
import sqlalchemy as sa

from shared.models import registry
from shared.queue.hints import make_celery, task_name
from shared.queue.workers import is_alive
from shared.tables import Image, Job, Worker
from shared.vocabulary.states import JobState, WorkerKind
from tests.e2e.conftest import Stack
from tests.e2e.sent_images import ImageSender, assert_undisturbed, await_state, freeze_in_mid_batch, unfinished
from tests.waiting import wait_until_gone


@pytest.mark.parametrize("seed", range(3))
def test_a_detect_worker_killed_in_mid_batch(stack: Stack, sender: ImageSender, seed: int) -> None:
    worker, sent = freeze_in_mid_batch(stack, sender, "detect", random.Random(seed))
    worker.kill()
    assert_undisturbed(stack, sender, sent)
    stack.came_back(worker)


@pytest.mark.parametrize("seed", range(2))
def test_a_prepare_worker_killed_in_mid_work(stack: Stack, sender: ImageSender, seed: int) -> None:
    worker, sent = freeze_in_mid_batch(stack, sender, "prepare", random.Random(seed))
    worker.kill()
    assert_undisturbed(stack, sender, sent)
    stack.came_back(worker)


@pytest.mark.parametrize("name", ["detect", "prepare"])
def test_a_worker_frozen_beyond_its_lease(stack: Stack, sender: ImageSender, name: str) -> None:
    """The other worker does its jobs; the frozen worker's results are dropped when it continues."""
    worker, sent = freeze_in_mid_batch(stack, sender, name, random.Random(0))
    held = sa.select(sa.func.count()).where(Job.lease_owner.contains(f":{worker.pid}:"))
    stack.until(lambda: stack.query(held)[0][0] == 0)
    stack.until(lambda: unfinished(stack, sent) == 0)
    worker.signal(signal.SIGCONT)
    assert_undisturbed(stack, sender, sent)
    assert stack.find(worker.name) == worker
    # And it takes part again.
    alive = sa.select(Worker.id).where(Worker.id.contains(f":{worker.pid}:"), is_alive())
    stack.until(lambda: stack.query(alive))


@pytest.mark.parametrize("name", ["postgres", "redis", "nanio"])
def test_a_server_killed_in_mid_work(stack: Stack, sender: ImageSender, name: str) -> None:
    server = stack.find(name)
    sent = sender.send(32)
    await_state(stack, sent, JobState.DETECTING)
    assert unfinished(stack, sent)
    server.kill()
    assert_undisturbed(stack, sender, sent)
    stack.came_back(server)
    # An outage costs no attempt; a lease may run out under one that lasts.
    assert stack.query(sa.select(sa.func.max(Job.attempt)).where(Job.id.in_(sent)))[0][0] <= 2


def test_the_api_killed_in_mid_upload(stack: Stack, sender: ImageSender) -> None:
    (path,) = sender.make(1).values()
    large = path.with_suffix(".large")  # in parts, so that some of it is in the object store already
    large.write_bytes(path.read_bytes() + b"\0" * 20_000_000)
    body = httpx.Request("POST", stack.client.api_url, files=[("files", ("image.dcm", large.read_bytes()))])
    content = body.read()
    url = urlsplit(stack.client.api_url)
    images = stack.query(sa.select(sa.func.count(Image.id)))[0][0]
    api = stack.find("api")
    with socket.create_connection((url.hostname, url.port)) as connection:
        connection.sendall(
            b"POST /v1/studies HTTP/1.1\r\nHost: carina\r\n"
            + f"Authorization: Bearer {stack.api_key}\r\n".encode()
            + f"Content-Type: {body.headers['Content-Type']}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content[:18_000_000]
        )
        time.sleep(0.3)
        api.kill()
    stack.came_back(api)
    assert stack.query(sa.select(sa.func.count(Image.id)))[0][0] == images
    sizes = {item["Size"] for item in objects(stack) if item["Key"].startswith("originals/")}
    assert all(size < 1_000_000 for size in sizes)
    sent = sender.send(3)
    (outcome,) = stack.client.submit([path])
    assert outcome.outcome == "accepted"
    assert outcome.job_id is not None
    assert_undisturbed(stack, sender, sent | {outcome.job_id: path})


def objects(stack: Stack) -> Iterator[dict]:
    s3 = boto3.client(
        "s3",
        endpoint_url=stack.settings.s3_endpoint_url,
        region_name=stack.settings.s3_region,
        aws_access_key_id=stack.settings.s3_access_key_id.get_secret_value(),
        aws_secret_access_key=stack.settings.s3_secret_access_key.get_secret_value(),
    )
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=stack.settings.s3_bucket):
        yield from page.get("Contents", [])


def test_redis_wiped_with_two_hundred_jobs_queued(stack: Stack, sender: ImageSender) -> None:
    prepares = [stack.find(name) for name in stack.named("prepare")]
    for prepare in prepares:
        prepare.signal(signal.SIGSTOP)
    sent = sender.send(200)
    server = redis.Redis.from_url(stack.settings.redis_url.get_secret_value())
    await_state(stack, sent, JobState.QUEUED, least=195)
    server.flushall()
    for prepare in prepares:
        prepare.signal(signal.SIGCONT)
    assert_undisturbed(stack, sender, sent)


def test_redis_made_a_replica_of_nothing_under_load_and_back(stack: Stack, sender: ImageSender) -> None:
    workers = {name: stack.find(name) for name in stack.named("detect", "prepare", "beat", "intake", "notify", "api")}
    server = redis.Redis.from_url(stack.settings.redis_url.get_secret_value())
    sent = sender.send(32)
    await_state(stack, sent, JobState.DETECTING)
    server.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(redis.exceptions.ReadOnlyError):
            server.set("written", "")
        assert unfinished(stack, sent)
        while_refused = sender.send(16)
        assert_undisturbed(stack, sender, sent | while_refused)
    finally:
        server.replicaof("NO", "ONE")
    afterwards = sender.send(16)
    assert_undisturbed(stack, sender, sent | while_refused | afterwards)
    assert {name: stack.find(name) for name in workers} == workers, "none was started again"


def test_hints_delivered_many_times(stack: Stack, sender: ImageSender) -> None:
    app = make_celery(stack.settings)
    sent = sender.send(16)
    for _ in range(30):
        for stage in WorkerKind:  # of the sweep too: as if many beats ticked
            app.send_task(task_name(stage), retry=False)
    assert_undisturbed(stack, sender, sent)
    attempts = stack.query(sa.select(sa.func.max(Job.attempt)).where(Job.id.in_(sent)))[0][0]
    assert attempts == 1


def test_models_changed_under_load(stack: Stack, sender: ImageSender) -> None:
    first, second = sender.models
    stack.change(lambda session: registry.promote(session, first))
    sent: dict[UUID, Path] = {}
    for change in (
        lambda session: registry.promote(session, second),
        registry.roll_back,
        lambda session: registry.promote(session, second),
    ):
        batch = sender.send(64)  # more than all workers hold at a time
        sent |= batch
        succeeded = sa.select(Job.id).where(Job.id.in_(batch), Job.state == JobState.SUCCEEDED)
        stack.until(lambda succeeded=succeeded: len(stack.query(succeeded)) >= 8)
        stack.change(change)
    sent |= sender.send(8)  # found by the second model, however fast the workers were
    assert_undisturbed(stack, sender, sent)
    used = stack.query(sa.select(Job.model_id).where(Job.id.in_(sent)).distinct())
    assert {row.model_id for row in used} == {first, second}


def test_sigterm_in_mid_backlog_hands_jobs_back_and_ends_at_once(stack: Stack, sender: ImageSender) -> None:
    names = stack.named("detect", "prepare")
    processes = [psutil.Process(stack.find(name).pid) for name in names]
    said = len(stack.said.read_text())
    sent = sender.send(64)
    await_state(stack, sent, JobState.DETECTING)
    for process in processes:
        process.terminate()
    wait_until_gone(processes)
    assert unfinished(stack, sent)
    theirs = sa.or_(*(Job.lease_owner.contains(f":{process.pid}:") for process in processes))
    assert stack.query(sa.select(Job.id).where(theirs)) == []
    ended = [f"{name:<10} died (exit code 0)" for name in names]
    stack.until(lambda: all(line in stack.said.read_text()[said:] for line in ended))
    workers = stack.query(sa.select(Worker.id, Worker.stopped_at))
    stopped = [row.stopped_at for row in workers if any(f":{process.pid}:" in row.id for process in processes)]
    assert len(stopped) == len(processes)
    assert all(stopped)
    assert_undisturbed(stack, sender, sent)
    assert stack.query(sa.select(sa.func.max(Job.attempt)).where(Job.id.in_(sent)))[0][0] == 1
