"""The typed client and the command line where studies are searched, reviewed and tried again."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from api.client import Carina, Flag, RequestRefused, ReviewAction, SearchedState, StudiesQuery
from shared.access.keys import create_key
from shared.errors import DetectionFailed
from shared.ids import new_id
from shared.queue.outcome import FoundBox, FoundImage, give_up_or_retry, succeed
from shared.queue.stages import DETECT
from shared.tables import Image, Job
from shared.vocabulary.states import ModelState, Scope
from tests.integration.conftest import Server
from tests.integration.rows import add_image, add_model, add_result
from tests.integration.workshop import Workshop

USAGE, FAILED = 2, 1


@pytest.fixture
def key(workshop: Workshop) -> str:
    """A key to the workshop's studies."""
    with workshop.database.begin() as session:
        return create_key(session, project_name="workshop", name="ward", scopes=[Scope.READ, Scope.SUBMIT])


@pytest.fixture
def client(server: Server, key: str) -> Iterator[Carina]:
    with Carina(server.url, key) as client:
        yield client


@pytest.fixture
def here(server: Server, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, under an API that answers."""
    monkeypatch.setenv("CARINA_API_URL", server.url)
    monkeypatch.setenv("CARINA_API_KEY", key)
    monkeypatch.setenv("COLUMNS", "200")  # ids stay whole, and nothing is folded
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def jobs(workshop: Workshop) -> list[UUID]:
    """Of five jobs the first two have found something, the second on a rotated image, and the third has failed."""
    with workshop.database.begin() as session:
        add_model(session, state=ModelState.ACTIVE)
    jobs = workshop.rows(5)
    claims = {claimed.job_id: claimed for claimed in workshop.claim(DETECT)}
    nodule, mass = FoundBox(1, "Nodule", 0.9, (1, 2, 3, 4)), FoundBox(2, "Mass [old]", 0.5, (1, 2, 3, 4))
    with workshop.database.begin() as session:
        succeed(session, {claims[jobs[0]]: FoundImage([nodule]), claims[jobs[1]]: FoundImage([nodule, mass])})
        give_up_or_retry(session, claims[jobs[2]], DetectionFailed(), max_attempts=1, backoff_s=0)
        session.get_one(Image, session.get_one(Job, jobs[1]).image_id).flags = ["rotated"]
    return jobs


def study_of(workshop: Workshop, job_id: UUID) -> UUID:
    return workshop.job(job_id).study_id


@pytest.fixture
def image_id(workshop: Workshop) -> UUID:
    """An image on which a model has found three boxes."""
    with workshop.database.begin() as session:
        image = add_image(session, workshop.project_id)
        add_result(session, image, "first")
        return image.id


def test_a_search_yields_studies_page_by_page(client: Carina, workshop: Workshop, jobs: list[UUID]) -> None:
    newest_first = [study_of(workshop, job_id) for job_id in reversed(jobs)]
    assert [study.id for study in client.studies()] == newest_first
    assert [study.id for study in client.studies(StudiesQuery(limit=2))] == newest_first
    assert [study.id for study in client.studies(StudiesQuery(limit=2, before=newest_first[1]))] == newest_first[2:]
    (rotated,) = client.studies(StudiesQuery(finding="Nodule", min_score=0.6, flag=Flag.ROTATED))
    assert (rotated.id, [each.class_name for each in rotated.findings]) == (newest_first[3], ["Nodule"])
    (failed,) = client.studies(StudiesQuery(state=SearchedState("failed")))
    assert [problem.code for problem in failed.problems] == ["detection_failed"]


def test_many_jobs_the_queue_and_another_try(client: Carina, workshop: Workshop, jobs: list[UUID]) -> None:
    unknown = [new_id() for _ in range(100)]  # more than one request may ask for
    assert [job.id for job in client.jobs([*jobs[:2], *unknown, *jobs[2:]])] == jobs
    assert list(client.jobs([])) == []
    queue = client.queue()
    assert queue.jobs["detecting"] == 2
    (failure,) = queue.failures
    assert (failure.code, failure.study_ids) == ("detection_failed", [study_of(workshop, jobs[2])])
    assert client.retry_failed("decoder_crashed").to_prepare == 0
    assert client.retry_failed(failure.code, hours=1).to_prepare == 1
    assert client.retry_failed(failure.code).to_prepare == 0, "the second time there is a later job"
    with workshop.database.begin() as session:
        image_id = session.get_one(Job, jobs[2]).image_id
        states = session.scalars(sa.select(Job.state).where(Job.image_id == image_id).order_by(Job.id)).all()
    assert states == ["failed", "queued"]


def test_a_reader_says_what_is_right_takes_it_back_and_says_it_again(client: Carina, image_id: UUID) -> None:
    first = client.review(image_id)
    assert (first.last_event, first.may_undo, [finding.id for finding in first.findings]) == (
        0,
        False,
        ["model-0", "model-1", "model-2"],
    )
    accepted = client.add_to_review(first, ReviewAction.ACCEPT, "model-0")
    assert [finding.verdict for finding in accepted.findings] == ["accepted", "undecided", "undecided"]
    with pytest.raises(RequestRefused) as caught:
        client.add_to_review(first, ReviewAction.REJECT, "model-0")
    assert caught.value.code == "review_conflict"
    changed = client.add_to_review(accepted, ReviewAction.CHANGE, "model-1", class_id=7, box_xyxy_px=(1, 2, 30, 40))
    assert (changed.findings[1].class_name, changed.findings[1].box_xyxy_px) == ("Opacity", (1, 2, 30, 40))
    undone = client.undo_review(changed)
    assert (undone.findings[1].class_name, undone.may_redo) == ("Mass", True)
    assert client.redo_review(undone).findings == changed.findings
    done = client.add_to_review(client.review(image_id), ReviewAction.COMPLETE, min_score=0.5)
    assert (done.is_complete, done.complete_from_score) == (True, 0.5)
    assert client.review(image_id, job_id=first.job_id) == done
    with pytest.raises(ValueError, match="finding_id"):
        client.add_to_review(done, ReviewAction.NO_FINDING, "model-0")


def test_the_command_searches_in_every_form(
    here: Path, carina: Callable[..., str], workshop: Workshop, jobs: list[UUID]
) -> None:
    oldest_first = [str(study_of(workshop, job_id)) for job_id in jobs]
    told = carina("studies", "--finding", "Nodule", "--flag", "rotated")
    assert oldest_first[1] in told
    assert "Nodule 0.90" in told
    assert "Mass [old] 0.50" in told
    assert "For research use only" in told
    assert not any(study_id in told for study_id in (oldest_first[0], *oldest_first[2:]))
    assert "detection_failed" in carina("studies", oldest_first[2])

    found = json.loads(carina("studies", "-n", "2", "--json"))
    assert [study["id"] for study in found] == [oldest_first[4], oldest_first[3]]
    lines = carina("studies", "--state", "succeeded", "--format", "jsonl", "--since", "2020-01-01").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [oldest_first[1], oldest_first[0]]
    carina("studies", "--all", "--format", "csv", "--output", "studies.csv")
    with (here / "studies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["study_id"] for row in rows] == oldest_first[::-1]
    assert (rows[2]["state"], rows[2]["codes"]) == ("failed", "detection_failed")
    assert (rows[3]["flags"], rows[3]["findings"]) == ("rotated", "Nodule 0.9; Mass [old] 0.5")

    assert "since" in carina("studies", "--since", "yesterday", code=USAGE)
    assert "nothing is known of names" in carina("studies", "Doe^Jane", code=USAGE)


def test_the_command_tries_again_what_failed_with_a_code(
    here: Path, carina: Callable[..., str], workshop: Workshop, jobs: list[UUID]
) -> None:
    assert "1 jobs are tried again" in carina("retry", "--code", "detection_failed")
    assert "0 jobs are tried again" in carina("retry", "--code", "detection_failed")
    for wrong in ([], [str(new_id()), "--code", "detection_failed"], ["--code", "x", "--hours", "0"]):
        assert "carina retry" in carina("retry", *wrong, code=USAGE)


def test_the_command_shows_what_readers_say(
    here: Path, carina: Callable[..., str], client: Carina, image_id: UUID
) -> None:
    review = client.add_to_review(client.review(image_id), ReviewAction.REJECT, "model-1")
    review = client.add_to_review(review, ReviewAction.DRAW, class_id=7, box_xyxy_px=(1, 2, 30, 40))
    told = carina("reviews", str(image_id))
    assert "the review is not done" in told
    for words in ("rejected", "draw Opacity", "1, 2, 30, 40", "ward"):
        assert words in told
    client.add_to_review(client.undo_review(review), ReviewAction.NO_FINDING)
    told = carina("reviews", str(image_id), "--job", str(review.job_id))
    assert "event 2" in told
    assert "the review is done" in told
    assert json.loads(carina("reviews", str(image_id), "--json"))["last_event"] == 4
    assert "not_found" in carina("reviews", str(new_id()), code=FAILED)
