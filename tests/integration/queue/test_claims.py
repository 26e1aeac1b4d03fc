"""The lease: who may take a job, keep it, and end it; one result whatever happens in between."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.detector.card import ModelCard
from shared.errors import DetectionFailed, PermanentError
from shared.leases import LOST_WORKER, release, renew
from shared.queue.claim import Claim, claim, expire_leases
from shared.queue.outcome import (
    DUPLICATE,
    FoundBox,
    FoundImage,
    StoredRendition,
    cancel,
    give_up_or_retry,
    mark_ready,
    succeed,
)
from shared.queue.stages import DETECT, PREPARE
from shared.tables import Job, Model
from shared.vocabulary.states import JobState
from tests.integration.workshop import Workshop
from tests.tiny_model import make_tiny_model
from tests.waiting import wait_until_blocked

pytestmark = pytest.mark.usefixtures("tiny_model_id")

BOX = FoundBox(30, "Mass", 0.5, (1, 2, 3, 4))
RENDITION = StoredRendition("0" * 64, 1, 96, 80, 960, 800)
PAST = "epoch"


def expire(workshop: Workshop, *claims: Claim) -> None:
    for claimed in claims:
        workshop.set(claimed.job_id, lease_expires_at=PAST)


def sweep(workshop: Workshop, max_attempts: int = 4) -> dict[JobState, int]:
    with workshop.database.begin() as session:
        return {state: count for state, count in expire_leases(session, max_attempts=max_attempts).items() if count}


CHANGES: dict[str, Callable[[Session, Claim], object]] = {
    "renew": lambda session, claimed: renew(session, [claimed], lease_s=60),
    "release": lambda session, claimed: release(session, [claimed]),
    "succeed": lambda session, claimed: succeed(session, {claimed: FoundImage([BOX])}),
    "reject": lambda session, claimed: give_up_or_retry(
        session, claimed, PermanentError(), max_attempts=4, backoff_s=1
    ),
    "retry": lambda session, claimed: give_up_or_retry(
        session, claimed, DetectionFailed(), max_attempts=4, backoff_s=1
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_worker_whose_lease_ran_out_can_change_nothing(
    workshop: Workshop, change: Callable[[Session, Claim], object]
) -> None:
    (job_id,) = workshop.rows(1)

    def is_refused(late: Claim) -> None:
        before = vars(workshop.job(job_id)).copy()
        with workshop.database.begin() as session:
            assert not change(session, late)
        after = vars(workshop.job(job_id))
        del before["_sa_instance_state"], after["_sa_instance_state"]
        assert after == before
        assert workshop.found(job_id) == []

    (late,) = workshop.claim(DETECT, "late")
    expire(workshop, late)
    is_refused(late)  # nobody has noticed yet
    sweep(workshop)
    is_refused(late)  # it waits for somebody else
    (other,) = workshop.claim(DETECT, "other")
    is_refused(late)  # somebody else has it
    is_refused(replace(other, attempt=other.attempt - 1))  # the same owner, but of an earlier attempt
    with workshop.database.begin() as session:
        assert succeed(session, {other: FoundImage([BOX])}) == {job_id}
    with workshop.database.begin() as session:
        assert not change(session, late)
    assert len(workshop.found(job_id)) == 1


def test_a_late_prepare_worker_changes_neither_job_nor_image(workshop: Workshop) -> None:
    workshop.rows(1, JobState.QUEUED)
    (late,) = workshop.claim(PREPARE, "late")
    expire(workshop, late)
    with workshop.database.begin() as session:
        assert not mark_ready(session, late, RENDITION)
    sweep(workshop)
    (other,) = workshop.claim(PREPARE, "other")
    assert other.height_px == 96
    with workshop.database.begin() as session:
        assert not mark_ready(session, late, RENDITION)
        assert mark_ready(session, other, RENDITION)
    assert workshop.claim(DETECT)[0].height_px == 960


def test_a_result_that_arrives_twice_counts_once(workshop: Workshop) -> None:
    (job_id,) = workshop.rows(1)
    (claimed,) = workshop.claim(DETECT)
    for expected in ({job_id}, set()):
        with workshop.database.begin() as session:
            assert succeed(session, {claimed: FoundImage([BOX, BOX])}) == expected
    assert [row.rank for row in workshop.found(job_id)] == [0, 1]


def test_claims_at_the_same_time_never_overlap_and_miss_nothing(workshop: Workshop) -> None:
    jobs = workshop.rows(60)
    start = threading.Barrier(6)

    def claim_all(number: int) -> list[Claim]:
        start.wait()
        taken = []
        while some := workshop.claim(DETECT, f"worker-{number}", limit=3):
            taken += some
        return taken

    with ThreadPoolExecutor(6) as threads:
        taken = [claimed for claims in threads.map(claim_all, range(6)) for claimed in claims]
    # A worker that finds all that is in reach locked goes; what it left is there for the next hint.
    taken += workshop.claim(DETECT)
    assert sorted(claimed.job_id for claimed in taken) == jobs


def test_a_claim_does_not_wait_for_rows_that_another_is_claiming(workshop: Workshop) -> None:
    first, second = workshop.rows(2)
    with workshop.database.begin() as session:
        assert [claimed.job_id for claimed in claim(session, DETECT, "slow", limit=1, lease_s=60)] == [first]
        assert [claimed.job_id for claimed in workshop.claim(DETECT, "quick")] == [second]


def test_priority_overtakes_and_age_decides_among_equals(workshop: Workshop) -> None:
    jobs = workshop.rows(6)
    for place, priority in enumerate((5, 0, 9, 5, 9, 0)):
        workshop.set(jobs[place], priority=priority)
    order = [workshop.claim(DETECT, limit=1)[0].job_id for _ in jobs]
    assert order == [jobs[place] for place in (2, 4, 0, 3, 1, 5)]


def test_a_batch_is_of_one_model_and_a_suspect_is_alone(workshop: Workshop) -> None:
    named = workshop.promote(*make_tiny_model(1))
    active = workshop.promote(*make_tiny_model(2))
    jobs = workshop.rows(6)
    for place in (1, 3):
        workshop.set(jobs[place], requested_model_id=named)
    workshop.set(jobs[4], alone=True)
    batches = [workshop.claim(DETECT) for _ in range(4)]
    assert [[jobs.index(claimed.job_id) for claimed in batch] for batch in batches] == [[0, 2, 5], [1, 3], [4], []]
    assert [{claimed.model_id for claimed in batch} for batch in batches[:3]] == [{active}, {named}, {active}]


def test_a_job_that_backs_off_is_not_claimed_before_its_time(workshop: Workshop) -> None:
    (job_id,) = workshop.rows(1)
    (claimed,) = workshop.claim(DETECT)
    with workshop.database.begin() as session:
        give_up_or_retry(session, claimed, DetectionFailed(), max_attempts=4, backoff_s=60)
    assert workshop.claim(DETECT) == []
    workshop.set(job_id, available_at=PAST)
    assert [again.attempt for again in workshop.claim(DETECT)] == [2]


def test_attempts_used_up_fail_a_job_under_its_last_code(workshop: Workshop) -> None:
    silent, unlucky = workshop.rows(2)
    for attempt in (1, 2):
        claims = workshop.claim(DETECT) + workshop.claim(DETECT)
        assert {claimed.attempt for claimed in claims} == {attempt}
        expire(workshop, *(claimed for claimed in claims if claimed.job_id == silent))
        sweep(workshop, max_attempts=2)
        with workshop.database.begin() as session:
            (last,) = (claimed for claimed in claims if claimed.job_id == unlucky)
            give_up_or_retry(session, last, DetectionFailed(), max_attempts=2, backoff_s=0)
    assert workshop.states([silent, unlucky]) == ["failed", "failed"]
    assert [workshop.job(job_id).code for job_id in (silent, unlucky)] == [LOST_WORKER, "detection_failed"]
    assert all(workshop.job(job_id).finished_at for job_id in (silent, unlucky))


def test_giving_a_job_back_costs_it_no_attempt(workshop: Workshop) -> None:
    (job_id,) = workshop.rows(1)
    for _ in range(3):
        claims = workshop.claim(DETECT)
        assert [claimed.attempt for claimed in claims] == [1]
        with workshop.database.begin() as session:
            assert release(session, claims) == 1
    assert not workshop.job(job_id).alone


def test_two_sweeps_at_once_do_what_one_does(workshop: Workshop) -> None:
    jobs = workshop.rows(40)
    claims = workshop.claim(DETECT)
    expire(workshop, *claims[:30])
    for claimed in claims[:10]:
        workshop.set(claimed.job_id, attempt=4)
    start = threading.Barrier(4)

    def sweep_with_others(_: int) -> dict[JobState, int]:
        start.wait()
        return sweep(workshop)

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(sweep_with_others, range(4)))
    assert sum(outcome.get(JobState.FAILED, 0) for outcome in outcomes) == 10
    assert sum(outcome.get(JobState.READY, 0) for outcome in outcomes) == 20
    assert workshop.states(jobs) == ["failed"] * 10 + ["ready"] * 20 + ["detecting"] * 10
    assert [workshop.job(job_id).attempt for job_id in jobs[10:]] == [1] * 30


def test_a_cancelled_job_is_never_claimed_and_its_result_never_counts(workshop: Workshop) -> None:
    before, during = workshop.rows(2)
    workshop.set(before, priority=0)
    (held,) = workshop.claim(DETECT, limit=1)
    with workshop.database.begin() as session:
        assert cancel(session, workshop.project_id, before)
        assert cancel(session, workshop.project_id, during)
    assert workshop.claim(DETECT) == []
    with workshop.database.begin() as session:
        assert succeed(session, {held: FoundImage([BOX])}) == set()
        assert not cancel(session, workshop.project_id, during)
    assert workshop.states([before, during]) == ["cancelled", "cancelled"]
    assert workshop.found(during) == []


def test_detection_waits_for_a_model(workshop: Workshop, tiny_model: tuple[ModelCard, bytes]) -> None:
    (job_id,) = workshop.rows(1)
    with workshop.database.begin() as session:
        session.execute(sa.update(Model).values(state="retired"))
    assert workshop.claim(DETECT) == []
    workshop.promote(*tiny_model)
    assert [claimed.job_id for claimed in workshop.claim(DETECT)] == [job_id]


def test_a_lease_is_extended_without_a_change_of_an_index(workshop: Workshop) -> None:
    workshop.rows(3)
    claims = workshop.claim(DETECT)
    with workshop.database.begin() as session:
        assert renew(session, claims, lease_s=60) == 3
        hot = sa.text("SELECT pg_stat_get_xact_tuples_hot_updated('job'::regclass)")
        assert session.scalar(hot) == 3


def test_of_two_jobs_of_an_image_that_end_at_the_same_time_one_has_the_result(workshop: Workshop) -> None:
    first, other = workshop.rows(2)
    with workshop.database.begin() as session:
        job = session.get_one(Job, first)
        twin = Job(project_id=job.project_id, image_id=job.image_id, study_id=job.study_id, state=JobState.READY)
        session.add(twin)
        session.flush()
        second = twin.id
    held = {claimed.job_id: claimed for claimed in workshop.claim(DETECT)}

    def end_second() -> set[UUID]:
        with workshop.database.begin() as session:
            return succeed(session, {held[other]: FoundImage([BOX]), held[second]: FoundImage([BOX])})

    with ThreadPoolExecutor(1) as thread:
        with workshop.database.begin() as session:
            assert succeed(session, {held[first]: FoundImage([BOX])}) == {first}
            waiting = thread.submit(end_second)
            wait_until_blocked(workshop.database)  # until it is clear whether the first one commits
        assert waiting.result() == {other}
    assert workshop.states([first, other, second]) == ["succeeded", "succeeded", "cancelled"]
    assert workshop.job(second).code == DUPLICATE
    assert [len(workshop.found(job_id)) for job_id in (first, other, second)] == [1, 1, 0]
