"""What the queue says of itself: now, over time, and of what failed."""

import json
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import sqlalchemy as sa

from shared.access.keys import verify_key
from shared.database import Database
from shared.queue.claim import expire_leases
from shared.queue.hints import Hints
from shared.queue.samples import INTERVAL, count_past, read_history, take_sample
from shared.settings import Settings
from shared.submissions.failures import list_failures, retry_failures
from shared.submissions.progress import settle
from shared.tables import Image, Job, QueueSample, Submission, SubmissionFile, Worker
from shared.version import RENDITION_VERSION
from shared.vocabulary.states import JobState, WorkerKind
from tests.integration.conftest import Api, Keys, Server, png
from tests.integration.rows import add_model
from tests.integration.workshop import Workshop
from tests.waiting import DEADLINE_S
from workers.sweep import sweep


def set_jobs(database: Database, jobs: list[str], **columns: object) -> None:
    with database.begin() as session:
        session.execute(sa.update(Job).where(Job.id.in_([UUID(job) for job in jobs])).values(**columns))


def send(api: Api, *seeds: int) -> list[str]:
    return [file["job_id"] for file in api.send(*((f"{seed}.png", png(seed)) for seed in seeds)).get_json()["files"]]


def fail(database: Database, jobs: list[str], code: str = "detection_failed") -> None:
    values = {"state": JobState.FAILED, "code": code, "reason": "It is broken.", "finished_at": sa.func.now()}
    set_jobs(database, jobs, **values, attempt=4)


def queue(api: Api) -> dict:
    time.sleep(1.1)  # it is looked at once a second
    return api.get("/v1/queue").get_json()


def test_the_queue_counts_what_waits_what_is_done_and_who_works(api: Api, database: Database) -> None:
    jobs = send(api, 1, 2, 3, 4)
    set_jobs(database, jobs[:1], created_at=sa.func.now() - timedelta(minutes=10))
    set_jobs(database, jobs[3:], state=JobState.SUCCEEDED, finished_at=sa.func.now())
    with database.begin() as session:
        model = add_model(session)
        session.add(Worker(id="detect@a:1:x", stage=WorkerKind.DETECT, device="cpu", model_id=model.id))
        silent = datetime.now(UTC) - timedelta(minutes=5)
        session.add(Worker(id="prepare@b:2:y", stage=WorkerKind.PREPARE, seen_at=silent))
        session.add(Worker(id="prepare@b:3:z", stage=WorkerKind.PREPARE, stopped_at=silent))
    found = queue(api)
    assert found["jobs"] == {"queued": 3, "preparing": 0, "ready": 0, "detecting": 0}
    assert 590 < found["oldest_waiting_s"]["prepare"] < 660
    assert found["oldest_waiting_s"]["detect"] == 0
    assert found["finished_last_minute"]["succeeded"] == found["finished_last_day"]["succeeded"] == 1
    seen = {worker["id"]: worker for worker in found["workers"]}
    assert {id_: worker["alive"] for id_, worker in seen.items()} == {"detect@a:1:x": True, "prepare@b:2:y": False}
    assert (seen["detect@a:1:x"]["device"], seen["detect@a:1:x"]["model_name"]) == ("cpu", "lungs")


def test_a_project_sees_its_own_failures_and_nobody_elses(api: Api, keys: Keys, database: Database) -> None:
    jobs = send(api, 1, 2, 3)
    fail(database, jobs[:2])
    set_jobs(database, jobs[2:], state=JobState.REJECTED, code="undecodable_pixel_data", finished_at=sa.func.now())
    mine = queue(api)["failures"]
    assert [(each["code"], each["state"], each["count"]) for each in mine] == [
        ("detection_failed", "failed", 2),
        ("undecodable_pixel_data", "rejected", 1),
    ]
    assert mine[0]["reason"] == "It is broken."
    studies = {api.get(f"/v1/jobs/{job}").get_json()["study_id"] for job in jobs[:2]}
    assert set(mine[0]["study_ids"]) == studies
    theirs = queue(api.as_(keys.stranger))
    assert theirs["failures"] == []
    assert studies.isdisjoint(json.dumps(theirs))


def test_what_failed_is_tried_again_once_and_only_that(api: Api, keys: Keys, database: Database) -> None:
    jobs = send(api, 1, 2, 3)
    fail(database, jobs[:1])
    fail(database, jobs[1:2], code="worker_lost")
    with database.begin() as session:
        image_of_second = session.get_one(Job, UUID(jobs[1])).image_id
        rendition = {"rendition_sha256": "0" * 64, "rendition_version": RENDITION_VERSION}
        session.execute(sa.update(Image).where(Image.id == image_of_second).values(**rendition))
    body = {"code": "worker_lost"}
    assert api.as_(keys.stranger).post("/v1/jobs/retry", body).get_json() == {"to_prepare": 0, "to_detect": 0}
    # Two people at once, and then one more: one successor.
    answers: list[dict] = []
    people = [
        threading.Thread(target=lambda: answers.append(api.post("/v1/jobs/retry", body).get_json())) for _ in "ab"
    ]
    for person in people:
        person.start()
    for person in people:
        person.join()
    answers.append(api.post("/v1/jobs/retry", body).get_json())
    assert sorted(answer["to_detect"] for answer in answers) == [0, 0, 1]
    with database.begin() as session:
        of_image = session.scalars(sa.select(Job).where(Job.image_id == image_of_second).order_by(Job.id)).all()
        assert [(job.state, job.attempt) for job in of_image] == [("failed", 4), ("ready", 0)]
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 4
        successor = str(of_image[1].id)
    assert [each["code"] for each in queue(api)["failures"]] == ["detection_failed"]
    # What fails again can be tried again; where renditions are made in another way by now, from the original on.
    fail(database, [successor], code="worker_lost")
    with database.begin() as session:
        older = sa.update(Image).where(Image.id == image_of_second).values(rendition_version=RENDITION_VERSION - 1)
        session.execute(older)
    assert api.post("/v1/jobs/retry", body).get_json() == {"to_prepare": 1, "to_detect": 0}


def test_a_submission_goes_on_when_its_failed_job_is_tried_again(api: Api, keys: Keys, database: Database) -> None:
    (job,) = send(api, 1)
    fail(database, [job])
    with database.begin() as session:
        row = session.get_one(Job, UUID(job))
        submission = Submission(
            project_id=verify_key(session, keys.both).project_id, state="processing", closed_at=sa.func.now()
        )
        session.add(submission)
        session.flush()
        row.submission_id, submission_id = submission.id, submission.id
        session.add(
            SubmissionFile(
                submission_id=submission.id, number=0, state="accepted", job_id=row.id, image_id=row.image_id
            )
        )
    with database.begin() as session:
        assert settle(session, submission_id)
    assert api.get(f"/v1/submissions/{submission_id}").get_json()["state"] == "completed_with_errors"
    assert api.post("/v1/jobs/retry", {"code": "detection_failed"}).get_json()["to_prepare"] == 1
    going_on = api.get(f"/v1/submissions/{submission_id}").get_json()
    assert (going_on["state"], going_on["counts"]["accepted"], going_on["counts"]["failed"]) == ("processing", 1, 0)


def test_what_failed_of_a_cancelled_submission_is_no_failure_to_mend(api: Api, keys: Keys, database: Database) -> None:
    given_up, kept = send(api, 1, 2)
    fail(database, [given_up, kept])
    with database.begin() as session:
        project_id = verify_key(session, keys.both).project_id
        submission = Submission(project_id=project_id, state="cancelled", closed_at=sa.func.now())
        session.add(submission)
        session.flush()
        session.get_one(Job, UUID(given_up)).submission_id = submission.id
    with database.begin() as session:
        (failure,) = list_failures(session, project_id, timedelta(hours=1))
        assert (failure.state, failure.count) == (JobState.FAILED, 1)
    body = {"code": "detection_failed"}
    assert api.post("/v1/jobs/retry", body).get_json() == {"to_prepare": 1, "to_detect": 0}
    with database.begin() as session:
        assert list_failures(session, project_id, timedelta(hours=1)) == []


def test_what_a_lost_worker_had_is_tried_again(workshop: Workshop) -> None:
    (job,) = workshop.rows(1, JobState.QUEUED)
    workshop.set(job, state=JobState.PREPARING, lease_owner="gone", lease_expires_at=sa.func.now(), attempt=4)
    with workshop.database.begin() as session:
        expire_leases(session, max_attempts=4)
        (failure,) = list_failures(session, workshop.project_id, timedelta(hours=1))
        assert (failure.code, failure.state) == ("worker_lost", JobState.FAILED)
        assert retry_failures(session, workshop.project_id, "worker_lost", timedelta(hours=1)) == [JobState.QUEUED]
        assert list_failures(session, workshop.project_id, timedelta(hours=1)) == []


def test_several_beats_take_one_sample_an_interval(
    workshop: Workshop, settings: Settings, hints: Hints, database: Database
) -> None:
    workshop.rows(3)
    threads = [threading.Thread(target=sweep, args=(settings, database, hints, "beat")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.begin() as session:
        samples = session.scalars(sa.select(QueueSample)).all()
        # Four sweeps may lie on both sides of an interval's end; on a busy machine, of more than one.
        assert len(samples) == len({sample.at for sample in samples}) < 4
        assert getattr(samples[0], JobState.READY) == 3
        assert samples[0].at.timestamp() % INTERVAL.total_seconds() == 0


def sample(at: datetime, **columns: float) -> QueueSample:
    zero = dict.fromkeys(column.key for column in QueueSample.__table__.columns)
    return QueueSample(**{**dict.fromkeys(zero, 0), "at": at, "elapsed_s": 15, **columns})


def test_each_end_counts_once(workshop: Workshop, database: Database) -> None:
    now = datetime.now(UTC)
    with database.begin() as session:
        session.add(sample(now - timedelta(minutes=10), succeeded=5))
    for job, ago in zip(workshop.rows(3), (11, 5, 4), strict=True):
        workshop.set(job, state=JobState.SUCCEEDED, finished_at=now - timedelta(minutes=ago))
    with database.begin() as session:
        assert take_sample(session)
    with database.begin() as session:
        kept = session.scalars(sa.select(QueueSample).order_by(QueueSample.at)).all()
        assert [getattr(row, JobState.SUCCEEDED) for row in kept] == [5, 2], "those since the sample before"
        assert 570 < kept[1].elapsed_s < 900  # and what this test took
        assert count_past(session, now, timedelta(hours=1))[JobState.SUCCEEDED] == 7


def test_a_long_history_has_no_more_points_than_a_short_one(api: Api, database: Database) -> None:
    end = datetime.now(UTC).replace(microsecond=0)
    with database.begin() as session:
        for number in range(2000):
            session.add(
                sample(
                    end - number * INTERVAL,
                    queued=number % 7,
                    succeeded=10,
                    batches=2000 - number,
                    images=8 * (2000 - number),
                    step_s=0.5 * (2000 - number),
                )
            )
        spans = read_history(session, timedelta(hours=168), points=100)
        assert len(spans) <= 102
        assert sum(span.jobs[JobState.SUCCEEDED] for span in spans) == 20_000
        assert max(span.jobs[JobState.QUEUED] for span in spans) == 6
    columns = api.get("/v1/queue/history", hours=1).get_json()
    assert 200 < len(columns["at"]) <= 241
    assert {len(column) for column in columns.values()} == {len(columns["at"])}
    assert columns["at"] == sorted(columns["at"])
    assert set(columns["succeeded_per_min"]) == {40.0}
    assert set(columns["batch_images"][1:]) == {8.0}
    assert set(columns["step_s"][1:]) == {0.5}
    assert api.get("/v1/queue/history", hours=169).status_code == 422


def test_the_stream_tells_of_changes_and_ends_with_the_process(server: Server, keys: Keys, workshop: Workshop) -> None:
    headers = {"Authorization": f"Bearer {keys.read}"}
    events: list[dict] = []
    with httpx.stream("GET", f"{server.url}/v1/queue/events", headers=headers, timeout=DEADLINE_S) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if not line.startswith("data: "):
                continue
            events.append(json.loads(line.removeprefix("data: ")))
            if events[-1]["jobs"]["ready"] == 0:
                workshop.rows(2)
            else:
                server.arbiter.send_signal(signal.SIGTERM)
    assert (events[0]["jobs"]["ready"], events[-1]["jobs"]["ready"] > 0) == (0, True)
    server.process.join(DEADLINE_S)
    assert server.process.exitcode == 0


def test_only_so_many_watch_at_once(make_api: Callable[[Settings], Api], settings: Settings, keys: Keys) -> None:
    """Who comes on top is told how it is now, and comes again."""
    api = make_api(settings.model_copy(update={"api_threads": 2}))
    watching = api.get("/v1/queue/events")
    beyond = api.get("/v1/queue/events")
    assert beyond.get_data(as_text=True).count("data: ") == 1
    watching.close()
    assert api.get("/v1/queue").status_code == 200
