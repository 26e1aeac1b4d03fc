"""Whatever is killed, and whenever: every job ends once, with the result that an undisturbed run has."""

import os
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
import numpy as np
import psutil
import pytest
import redis
import sqlalchemy as sa

from shared import models
from shared.detector.runtime import Detection, Detector
from shared.imaging.rendition import make_rendition, read_rendition
from shared.queue.hints import make_celery, task_name
from shared.queue.states import JobState, Stage
from shared.tables import Detection as DetectionRow
from shared.tables import Image, Job, Study, Worker
from tests.e2e.conftest import Process, Stack
from tests.synthetic_dicom import make_dicom, make_film
from tests.tiny_model import make_tiny_model

HEIGHT_PX, WIDTH_PX = 256, 220
BOXES_A_FILM = 3
#: So many jobs of a test, at most, have their boxes compared: that takes longer than finding them.
LOOKED_AT = 24


class Films:
    """Films that no other test has sent, and what the active model finds on them."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self._folder, self._stack, self._count = folder, stack, 0
        self.models = {
            stack.promote(*model): Detector(*model, "cpu", "fp32") for model in (make_tiny_model(1), make_tiny_model(2))
        }

    def make(self, count: int) -> dict[str, Path]:
        """Write films; return their paths by name."""
        made = {}
        base = make_film(HEIGHT_PX, WIDTH_PX)
        for _ in range(count):
            self._count += 1
            pixels = np.roll(base, 5 * self._count, axis=self._count % 2)
            pixels[: self._count % 97 + 20, : self._count % 89 + 20] //= 3
            uid = f"1.2.3.{os.getpid()}.{self._count}"
            path = self._folder / f"{self._count}.dcm"
            path.write_bytes(make_dicom(pixels, bits=12, SOPInstanceUID=uid, StudyInstanceUID=uid))
            made[path.name] = path
        return made

    def send(self, count: int) -> dict[UUID, Path]:
        """Submit new films; return their paths by job."""
        paths = self.make(count)
        outcomes = self._stack.client.submit(paths.values())
        assert [outcome.outcome for outcome in outcomes] == ["accepted"] * count
        return {outcome.job_id: paths[outcome.name] for outcome in outcomes if outcome.job_id}

    def expect(self, path: Path, model_id: UUID) -> tuple[Detection, ...]:
        """What an undisturbed run finds."""
        settings = self._stack.settings
        rendition = make_rendition(
            path.read_bytes(), rendition_px=settings.rendition_px, max_image_pixels=settings.max_image_pixels
        )
        detector = self.models[model_id]
        (found,) = detector.detect([detector.place(read_rendition(rendition.png))])
        return found


@pytest.fixture(scope="module")
def films(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Films:
    return Films(tmp_path_factory.mktemp("films"), stack)


def assert_undisturbed(stack: Stack, films: Films, sent: dict[UUID, Path], timeout_s: float = 90) -> None:
    """Every job succeeded once, with the right boxes of its model, and nothing is left behind."""
    states: list[str] = []

    def all_final() -> bool:
        states[:] = [row.state for row in stack.query(sa.select(Job.state).where(Job.id.in_(sent)))]
        return all(JobState(state).is_final for state in states)

    stack.until(all_final, timeout_s, pause_s=0.2)
    assert states == ["succeeded"] * len(sent)
    count = sa.select(sa.func.count()).select_from(DetectionRow).where(DetectionRow.job_id.in_(sent))
    assert stack.query(count)[0][0] == BOXES_A_FILM * len(sent)
    for job_id, path in random.Random(0).sample(sorted(sent.items()), min(LOOKED_AT, len(sent))):
        (job,) = stack.query(sa.select(Job.model_id, Job.lease_owner).where(Job.id == job_id))
        assert job.lease_owner is None
        found = sa.select(DetectionRow).where(DetectionRow.job_id == job_id).order_by(DetectionRow.rank)
        with stack.database.begin() as session:
            rows = [
                (row.model_id, row.class_id, row.score, (row.x_min_px, row.y_min_px, row.x_max_px, row.y_max_px))
                for row in session.scalars(found)
            ]
        expected = films.expect(path, job.model_id)
        assert [(model_id, class_id) for model_id, class_id, *_ in rows] == [
            (job.model_id, detection.category_id) for detection in expected
        ]
        for (*_, score, box), detection in zip(rows, expected, strict=True):
            assert score == pytest.approx(detection.score, abs=1e-4)
            assert box == pytest.approx(detection.box_xyxy_px, abs=0.1)
    assert leased(stack) == []
    assert stack.query(sa.select(Image.id).where(~sa.exists().where(Job.image_id == Image.id))) == []
    assert stack.query(sa.select(Study.id).where(~sa.exists().where(Image.study_id == Study.id))) == []


def leased(stack: Stack) -> list:
    held = sa.or_(Job.lease_owner.is_not(None), Job.state.in_((JobState.PREPARING, JobState.DETECTING)))
    return stack.query(sa.select(Job.id).where(held))


def await_state(stack: Stack, sent: dict[UUID, Path], state: JobState, least: int = 1) -> None:
    """Wait until so many of the jobs are in that state at once."""
    count = sa.select(sa.func.count()).where(Job.id.in_(sent), Job.state == state)
    stack.until(lambda: stack.query(count)[0][0] >= least, pause_s=0.005)


def unfinished(stack: Stack, sent: dict[UUID, Path]) -> int:
    open_states = [state for state in JobState if not state.is_final]
    count = sa.select(sa.func.count()).where(Job.id.in_(sent), Job.state.in_(open_states))
    return int(stack.query(count)[0][0])


def kill_in_mid_batch(stack: Stack, worker: Process, draw: random.Random) -> None:
    """Kill a worker at some moment at which it holds jobs."""
    held = sa.select(sa.func.count()).where(Job.lease_owner.contains(f":{worker.pid}:"))
    while True:
        stack.until(lambda: stack.query(held)[0][0] > 0, pause_s=0.005)
        time.sleep(draw.uniform(0, 0.05))
        worker.signal(signal.SIGSTOP)
        if stack.query(held)[0][0] > 0:
            worker.kill()
            return
        worker.signal(signal.SIGCONT)


@pytest.mark.parametrize("seed", range(3))
def test_a_detect_worker_killed_in_mid_batch(stack: Stack, films: Films, seed: int) -> None:
    draw = random.Random(seed)
    worker = stack.find(draw.choice(stack.named("detect")))
    sent = films.send(32)
    kill_in_mid_batch(stack, worker, draw)
    assert_undisturbed(stack, films, sent)
    stack.came_back(worker)


@pytest.mark.parametrize("seed", range(2))
def test_a_prepare_worker_killed_in_mid_work(stack: Stack, films: Films, seed: int) -> None:
    worker = stack.find("prepare")
    worker.signal(signal.SIGSTOP)
    sent = films.send(16)
    worker.signal(signal.SIGCONT)
    kill_in_mid_batch(stack, worker, random.Random(seed))
    assert_undisturbed(stack, films, sent)
    stack.came_back(worker)


@pytest.mark.parametrize("name", ["postgres", "redis", "nanio"])
def test_a_server_killed_in_mid_work(stack: Stack, films: Films, name: str) -> None:
    server = stack.find(name)
    sent = films.send(32)
    await_state(stack, sent, JobState.DETECTING)
    assert unfinished(stack, sent)
    server.kill()
    assert_undisturbed(stack, films, sent)
    stack.came_back(server)
    # An outage costs no attempt; a lease may run out under one that lasts.
    assert stack.query(sa.select(sa.func.max(Job.attempt)).where(Job.id.in_(sent)))[0][0] <= 2


def test_the_api_killed_in_mid_upload(stack: Stack, films: Films) -> None:
    (path,) = films.make(1).values()
    large = path.with_suffix(".large")  # in parts, so that some of it is in the object store already
    large.write_bytes(path.read_bytes() + b"\0" * 20_000_000)
    body = httpx.Request("POST", stack.client.api_url, files=[("files", ("film.dcm", large.read_bytes()))])
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
    sent = films.send(3)
    (outcome,) = stack.client.submit([path])
    assert outcome.outcome == "accepted"
    assert outcome.job_id is not None
    assert_undisturbed(stack, films, sent | {outcome.job_id: path})


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


def test_redis_wiped_with_two_hundred_jobs_queued(stack: Stack, films: Films) -> None:
    prepare = stack.find("prepare")
    prepare.signal(signal.SIGSTOP)
    sent = films.send(200)
    server = redis.Redis.from_url(stack.settings.redis_url.get_secret_value())
    await_state(stack, sent, JobState.QUEUED, least=195)
    server.flushall()
    prepare.signal(signal.SIGCONT)
    assert_undisturbed(stack, films, sent)


def test_hints_delivered_many_times(stack: Stack, films: Films) -> None:
    app = make_celery(stack.settings)
    sent = films.send(16)
    for _ in range(30):
        for stage in Stage:  # of the sweep too: as if many beats ticked
            app.send_task(task_name(stage), retry=False)
    assert_undisturbed(stack, films, sent)
    attempts = stack.query(sa.select(sa.func.max(Job.attempt)).where(Job.id.in_(sent)))[0][0]
    assert attempts == 1


def test_models_changed_under_load(stack: Stack, films: Films) -> None:
    first, second = films.models
    stack.change(lambda session: models.promote(session, first))
    sent = films.send(48)
    done = sa.select(sa.func.count()).where(Job.id.in_(sent), Job.state == JobState.SUCCEEDED)
    for step, change in enumerate(
        (
            lambda session: models.promote(session, second),
            models.roll_back,
            lambda session: models.promote(session, second),
        )
    ):
        stack.until(lambda so_far=8 * (step + 1): stack.query(done)[0][0] >= so_far)
        stack.change(change)
    assert_undisturbed(stack, films, sent)
    used = stack.query(sa.select(Job.model_id).where(Job.id.in_(sent)).distinct())
    assert {row.model_id for row in used} == {first, second}


def test_sigterm_in_mid_backlog_hands_jobs_back_and_ends_at_once(stack: Stack, films: Films) -> None:
    names = stack.named("detect", "prepare")
    processes = [psutil.Process(stack.find(name).pid) for name in names]
    said = len(stack.said.read_text())
    sent = films.send(64)
    await_state(stack, sent, JobState.DETECTING)
    for process in processes:
        process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []
    assert unfinished(stack, sent)
    assert leased(stack) == []
    ended = [f"{name:<10} died (exit code 0)" for name in names]
    stack.until(lambda: all(line in stack.said.read_text()[said:] for line in ended), timeout_s=5)
    workers = stack.query(sa.select(Worker.id, Worker.stopped_at))
    stopped = [row.stopped_at for row in workers if any(f":{process.pid}:" in row.id for process in processes)]
    assert len(stopped) == 3
    assert all(stopped)
    assert_undisturbed(stack, films, sent)
    assert stack.query(sa.select(sa.func.max(Job.attempt)).where(Job.id.in_(sent)))[0][0] == 1
