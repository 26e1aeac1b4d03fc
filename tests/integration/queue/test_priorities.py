"""The priority of what waits can be changed: of a submission, a study or a job, and of nothing else."""

from uuid import UUID

import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.queue.claim import claim
from shared.queue.stages import PREPARE
from shared.tables import AuditEvent, Job, Submission, SubmissionFile
from shared.vocabulary.states import FileState, JobState
from tests.integration.conftest import Api, Keys
from tests.integration.rows import add_image, add_job, home


@pytest.fixture
def jobs(database: Database, keys: Keys) -> list[UUID]:
    """Jobs of studies of their own: two that wait, one that is being prepared, one that has ended."""
    states = (JobState.QUEUED, JobState.QUEUED, JobState.READY, JobState.SUCCEEDED)
    with database.begin() as session:
        return [add_job(session, add_image(session, home(session)), state=state).id for state in states]


def priorities(database: Database) -> list[int]:
    with database.begin() as session:
        return list(session.scalars(sa.select(Job.priority).order_by(Job.id)))


def test_a_job_that_is_made_urgent_is_claimed_first(api: Api, database: Database, jobs: list[UUID]) -> None:
    answer = api.post("/v1/jobs/priority", {"id": str(jobs[1]), "priority": 9})
    assert answer.get_json() == {"jobs": 1, "files": 0}
    assert priorities(database) == [5, 9, 5, 5]
    with database.begin() as session:
        (first,) = claim(session, PREPARE, "worker", limit=1, lease_s=60)
        assert first.job_id == jobs[1]
        said = session.scalars(sa.select(AuditEvent).where(AuditEvent.action == "queue.prioritize")).one()
        assert said.subject == {"id": str(jobs[1]), "priority": 9, "jobs": 1, "files": 0}


def test_the_open_jobs_of_a_study_change_and_ended_ones_do_not(api: Api, database: Database, jobs: list[UUID]) -> None:
    with database.begin() as session:
        studies = [session.get_one(Job, job_id).study_id for job_id in jobs]
    counts = [
        api.post("/v1/jobs/priority", {"id": str(study), "priority": 2}).get_json()["jobs"]
        for study in (studies[2], studies[3])
    ]
    assert counts == [1, 0]
    assert priorities(database) == [5, 5, 2, 5]


def test_a_submission_takes_its_files_and_its_later_ones_along(api: Api, database: Database, jobs: list[UUID]) -> None:
    with database.begin() as session:
        session.add(submission := Submission(project_id=home(session)))
        session.flush()
        session.execute(sa.update(Job).where(Job.id == jobs[0]).values(submission_id=submission.id))
        for number, state in enumerate((FileState.ARRIVED, FileState.EXPECTED, FileState.ACCEPTED)):
            session.add(SubmissionFile(submission_id=submission.id, number=number, priority=5, state=state))
        submission_id = submission.id
    answer = api.post("/v1/jobs/priority", {"id": str(submission_id), "priority": 8})
    assert answer.get_json() == {"jobs": 1, "files": 2}
    assert priorities(database) == [8, 5, 5, 5]
    with database.begin() as session:
        files = sa.select(SubmissionFile.priority).order_by(SubmissionFile.number)
        assert list(session.scalars(files)) == [8, 8, 5]
        assert session.get_one(Submission, submission_id).priority == 8


@pytest.mark.parametrize("priority", [-1, 10])
def test_a_priority_out_of_range_is_refused(api: Api, jobs: list[UUID], priority: int) -> None:
    assert api.post("/v1/jobs/priority", {"id": str(jobs[0]), "priority": priority}).status_code == 422


def test_another_projects_rows_are_unknown(api: Api, keys: Keys, database: Database, jobs: list[UUID]) -> None:
    stranger = api.as_(keys.stranger)
    assert stranger.post("/v1/jobs/priority", {"id": str(jobs[0]), "priority": 9}).status_code == 404
    assert priorities(database) == [5, 5, 5, 5]
