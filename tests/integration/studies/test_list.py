"""The list of studies: each condition, page by page, for programs and as the worklist's page."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from pydantic import SecretStr

from api.studies import findings, summaries
from shared.access.keys import create_key
from shared.database import Database
from shared.errors import DetectionFailed, UndecodablePixelData
from shared.ids import first_id_at, new_id
from shared.queue.outcome import DUPLICATE, FoundBox, FoundImage, cancel, give_up_or_retry, succeed
from shared.queue.stages import DETECT
from shared.reviews.threads import fold_jobs, read_threads
from shared.settings import Settings
from shared.tables import Image, Job, Model, Study, Submission
from shared.vocabulary.states import JobState, ModelState, Scope
from tests.integration.conftest import Api, Keys
from tests.integration.console.test_viewer import data_of
from tests.integration.rows import add_model
from tests.integration.workshop import Workshop


@pytest.fixture
def key(workshop: Workshop) -> str:
    """A key to the workshop's studies; there is an active model, too."""
    with workshop.database.begin() as session:
        add_model(session, state=ModelState.ACTIVE)
        return create_key(session, project_name="workshop", name="reader", scopes=[Scope.READ, Scope.SUBMIT])


@pytest.fixture
def mine(api: Api, key: str) -> Api:
    """The API for whoever has the workshop's studies."""
    return api.as_(key)


@pytest.fixture
def page(make_api: Callable[[Settings], Api], settings: Settings, key: str) -> FlaskClient:
    """A browser that is signed in to the workshop's project."""
    http = make_api(settings.model_copy(update={"session_secret": SecretStr("s" * 32)}))._http
    assert http.post("/console/sign-in", data={"key": key}).status_code == 303
    return http


def studies(workshop: Workshop, jobs: Sequence[UUID]) -> list[str]:
    """The studies of jobs that were made in this order, the newest first."""
    return [str(workshop.job(job_id).study_id) for job_id in reversed(jobs)]


def found(api: Api, **query: object) -> list[str]:
    """The studies that a search answers."""
    answer = api.get("/v1/studies", **query)
    assert answer.status_code == 200, answer.get_json()
    return [study["id"] for study in answer.get_json()["studies"]]


def finish(workshop: Workshop, scores: dict[UUID, dict[str, float]]) -> None:
    """Have ready jobs succeed with a box of each of these classes."""
    claims = {claimed: scores[claimed.job_id] for claimed in workshop.claim(DETECT) if claimed.job_id in scores}
    assert len(claims) == len(scores)
    boxes = {
        claimed: FoundImage([FoundBox(1, name, score, (1, 2, 3, 4)) for name, score in classes.items()])
        for claimed, classes in claims.items()
    }
    with workshop.database.begin() as session:
        assert succeed(session, boxes) == scores.keys()


def again(workshop: Workshop, job_id: UUID, **columns: object) -> UUID:
    """Make another job of a job's image."""
    job = workshop.job(job_id)
    of_image = {"project_id": job.project_id, "image_id": job.image_id, "study_id": job.study_id}
    with workshop.database.begin() as session:
        session.add(successor := Job(**of_image, **{"state": JobState.READY} | columns))
        session.flush()
        return successor.id


def test_the_newest_come_first_and_each_has_one_line(mine: Api, workshop: Workshop) -> None:
    first, second = workshop.rows(2)
    with workshop.database.begin() as session:
        study = session.get_one(Study, workshop.job(first).study_id)
        study.study_instance_uid = "1.2.3"
        image = Image(
            project_id=study.project_id, study_id=study.id, sha256="f" * 64, byte_count=1, media_type="image/png",
            height_px=1, width_px=1, flags=["rotated", "low_resolution"],
        )  # fmt: skip
        session.add(image)
        session.flush()
        session.add(side := Job(project_id=study.project_id, image_id=image.id, study_id=study.id, priority=7))
        session.flush()
        unfit = side.id
    workshop.set(unfit, state="rejected", code="multi_frame", reason="The image has more than one frame.")
    finish(workshop, {first: {"Nodule": 0.9, "Mass": 0.31, "Fluid": 0.2}, second: {}})

    newer, older = mine.get("/v1/studies").get_json()["studies"]
    assert newer["id"] == str(workshop.job(second).study_id)
    assert (newer["state"], newer["findings"], newer["problems"]) == ("succeeded", [], [])
    assert older == older | {
        "study_instance_uid": "1.2.3",
        "image_count": 2,
        "state": "rejected",
        "states": {"rejected": 1, "succeeded": 1},
        "priority": 7,
        "flags": ["low_resolution", "rotated"],
        "findings": [{"class_name": "Nodule", "score": 0.9}, {"class_name": "Mass", "score": 0.31}],
        "problems": [{"code": "multi_frame", "reason": "The image has more than one frame."}],
    }
    (_, older) = mine.get("/v1/studies", min_score=0.95).get_json()["studies"]
    assert older["findings"] == []


def test_a_page_may_have_more_results_than_a_statement_has_parameters(database: Database) -> None:
    images = {new_id(): new_id() for _ in range(70_000)}
    with database.begin() as session:
        assert summaries._find_top(session, list(images), 0.5) == {}
        results = [[summaries._Result(job_id, new_id(), is_authoritative=True, abnormality=None)] for job_id in images]
        assert summaries._find_reviews(session, results) == {}
        assert fold_jobs(session, images) == read_threads(session, images) == {}
        assert not any(findings._read_boxes(session, dict.fromkeys(images), 0.5).values())


def test_by_the_state_and_priority_of_the_latest_job(mine: Api, workshop: Workshop) -> None:
    jobs = workshop.rows(6, priority=3)
    good, bad, lost, stopped, urgent, waiting = jobs
    workshop.set(urgent, priority=9)
    claims = {claimed.job_id: claimed for claimed in workshop.claim(DETECT)}
    with workshop.database.begin() as session:
        succeed(session, {claims[good]: FoundImage()})
        give_up_or_retry(session, claims[bad], UndecodablePixelData(), max_attempts=1, backoff_s=0)
        give_up_or_retry(session, claims[lost], DetectionFailed(), max_attempts=1, backoff_s=0)
        cancel(session, workshop.project_id, stopped)
    workshop.set(waiting, state="queued", lease_owner=None, lease_expires_at=None)
    for state, expected in {
        "succeeded": [good],
        "rejected": [bad],
        "failed": [lost],
        "cancelled": [stopped],
        "detecting": [urgent],
        "queued": [waiting],
        "ready": [],
        "preparing": [],
        "open": [urgent, waiting],
    }.items():
        assert found(mine, state=state) == studies(workshop, expected), state
    assert found(mine, priority=9) == studies(workshop, [urgent])
    assert found(mine, priority=3) == studies(workshop, [good, bad, lost, stopped, waiting])
    assert found(mine, priority=9, state="queued") == []
    # Only the latest job counts, but for one that was cancelled because another one has the result.
    again(workshop, lost)
    again(workshop, good, state="cancelled", code=DUPLICATE)
    assert found(mine, state="failed") == []
    assert found(mine, state="ready") == studies(workshop, [lost])
    assert found(mine, state="succeeded") == studies(workshop, [good])
    assert found(mine, state="cancelled") == studies(workshop, [stopped])


def test_by_a_finding_and_its_score(mine: Api, workshop: Workshop) -> None:
    sure, unsure, other, none = jobs = workshop.rows(4)
    finish(workshop, {sure: {"Nodule": 1.0}, unsure: {"Nodule": 0.3, "Mass": 0.7}, other: {"Mass": 0.29}, none: {}})
    assert found(mine, finding="Nodule") == studies(workshop, [sure, unsure])
    assert found(mine, finding="Nodule", min_score=0.31) == studies(workshop, [sure])
    assert found(mine, finding="Nodule", min_score=1) == studies(workshop, [sure])
    assert found(mine, finding="Mass") == studies(workshop, [unsure])
    assert found(mine, finding="Mass", min_score=0) == studies(workshop, [unsure, other])
    assert found(mine, finding="nodule") == []
    assert found(mine) == studies(workshop, jobs)


def test_by_flag_and_time(mine: Api, workshop: Workshop) -> None:
    jobs = workshop.rows(3)
    with workshop.database.begin() as session:
        for job_id, flags in zip(jobs, (["rotated", "not_a_chest"], [], ["rotated"]), strict=True):
            session.get_one(Image, session.get_one(Job, job_id).image_id).flags = flags
    assert found(mine, flag="rotated") == studies(workshop, [jobs[0], jobs[2]])
    assert found(mine, flag="not_a_chest") == studies(workshop, [jobs[0]])
    assert found(mine, flag="empty_exposure") == []
    now = datetime.now(UTC)
    for query, expected in [
        ({"since": now.date()}, jobs),
        ({"until": now.date()}, jobs),
        ({"since": now.date() + timedelta(days=1)}, []),
        ({"until": now.date() - timedelta(days=1)}, []),
        ({"since": (now - timedelta(hours=1)).isoformat()}, jobs),
        ({"until": (now - timedelta(hours=1)).isoformat()}, []),
    ]:
        assert found(mine, **query) == studies(workshop, expected), query


def test_by_what_is_typed(mine: Api, workshop: Workshop) -> None:
    job_id, other = workshop.rows(2)
    with workshop.database.begin() as session:
        session.add(submission := Submission(project_id=workshop.project_id))
        session.add(empty := Submission(project_id=workshop.project_id))
        session.flush()
        job = session.get_one(Job, job_id)
        job.submission_id, submission_id, empty_id = submission.id, submission.id, empty.id
        session.get_one(Study, job.study_id).study_instance_uid = "1.2.840.77"
        image = session.get_one(Image, job.image_id)
        texts = [job.id, job.image_id, job.study_id, submission.id, "1.2.840.77", image.sha256, image.sha256[:6]]
    for text in [*texts, f" {str(submission_id).upper()} "]:
        assert found(mine, q=text) == studies(workshop, [job_id]), text
    for text in (new_id(), empty_id, "1.2.840.7", "abcdef"):
        assert found(mine, q=text) == [], text
    assert found(mine, q=submission_id, state="ready") == studies(workshop, [job_id])
    assert found(mine, q=submission_id, state="failed") == []
    assert found(mine, state="ready") == studies(workshop, [job_id, other])


def test_conditions_go_together_whichever_is_the_rarest(mine: Api, workshop: Workshop) -> None:
    jobs = workshop.rows(8)
    finish(workshop, {job_id: {"Nodule": 0.9} if number < 6 else {} for number, job_id in enumerate(jobs)})
    with workshop.database.begin() as session:
        for job_id in jobs[4:]:
            session.get_one(Image, session.get_one(Job, job_id).image_id).flags = ["rotated"]
    for job_id in jobs[3:5]:
        workshop.set(job_id, priority=9)
    both = {"finding": "Nodule", "flag": "rotated"}
    assert found(mine, **both) == studies(workshop, jobs[4:6])
    assert found(mine, finding="Nodule", priority=9) == studies(workshop, jobs[3:5])
    assert found(mine, **both, priority=9, state="succeeded", since="2020-01-01") == studies(workshop, jobs[4:5])
    assert found(mine, **both, state="failed") == []


def test_pages_join_without_a_gap_whatever_comes_meanwhile(mine: Api, workshop: Workshop) -> None:
    jobs = workshop.rows(7)
    all_ = studies(workshop, jobs)
    for condition in ({}, {"state": "ready"}):
        first = mine.get("/v1/studies", limit=3, **condition).get_json()
        assert (first["next"], first["previous"]) == (all_[2], None)
        assert found(mine, limit=3, before=all_[2], **condition) == all_[3:6]
        last = mine.get("/v1/studies", limit=3, before=all_[5], **condition).get_json()
        assert ([study["id"] for study in last["studies"]], last["next"]) == (all_[6:], None)
        back = mine.get("/v1/studies", limit=3, after=last["previous"], **condition).get_json()
        assert ([study["id"] for study in back["studies"]], back["next"]) == (all_[3:6], all_[5])
        assert back["previous"] == all_[3]
        # The first page is full, even where fewer are newer.
        start = mine.get("/v1/studies", limit=3, after=all_[2], **condition).get_json()
        assert ([study["id"] for study in start["studies"]], start["previous"]) == (all_[:3], None)
        nothing = mine.get("/v1/studies", limit=3, before=first_id_at(datetime(2020, 1, 1)), **condition).get_json()
        assert (nothing["studies"], nothing["next"]) == ([], None)


def test_a_project_sees_its_own_only(api: Api, keys: Keys, mine: Api, workshop: Workshop) -> None:
    (job_id,) = workshop.rows(1)
    with workshop.database.begin() as session:
        session.add(submission := Submission(project_id=workshop.project_id))
        session.flush()
        job = session.get_one(Job, job_id)
        job.submission_id, image = submission.id, session.get_one(Image, job.image_id)
        image.flags, session.get_one(Study, job.study_id).study_instance_uid = ["rotated"], "1.2.3"
        queries = [{"q": text} for text in (job.id, image.id, job.study_id, submission.id, "1.2.3", image.sha256[:8])]
    finish(workshop, {job_id: {"Nodule": 0.9}})
    queries += [{}, {"state": "succeeded"}, {"priority": 5}, {"finding": "Nodule"}, {"flag": "rotated"}]
    for query in queries:
        assert found(mine, **query) == studies(workshop, [job_id]), query
        assert found(api.as_(keys.stranger), **query) == [], query


def test_what_cannot_be_understood_is_said_to_be(mine: Api, page: FlaskClient) -> None:
    for name, value in [
        *[("q", text) for text in ("Doe^Jane", "abc", "1.", "%")],
        *[("state", "done"), ("priority", "10"), ("priority", "high"), ("flag", "nice")],
        *[("min_score", "1.1"), ("min_score", "nan"), ("since", "yesterday"), ("until", "2026-02-30")],
        *[("since", "0001-01-01"), ("until", "9999-12-31"), ("before", "1"), ("after", "newest"), ("limit", "501")],
        ("order", "oldest"),
    ]:
        answer = mine.get("/v1/studies", **{name: value})
        assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_request"), (name, value)
        assert {error["name"].split(".")[0] for error in answer.get_json()["errors"]} == {name}
        shown = page.get("/console/studies", query_string={name: value})
        assert shown.status_code == 422, (name, value)
        assert "This search is not valid" in shown.text
        assert f'id="error-{name}"' in shown.text or f"<code>{name}</code>: " in shown.text
    for name in ("q", "finding"):
        assert mine.get("/v1/studies", **{name: "a\x00b"}).get_json()["code"] == "invalid_request"
        assert page.get("/console/studies", query_string={name: "a\x00b"}).status_code == 422


def test_a_page_has_one_cursor(mine: Api, page: FlaskClient) -> None:
    cursors = {"before": new_id(), "after": new_id()}
    assert mine.get("/v1/studies", **cursors).status_code == 422
    assert page.get("/console/studies", query_string=cursors).status_code == 422


def test_what_has_not_changed_is_not_sent_again(page: FlaskClient, workshop: Workshop) -> None:
    (job_id,) = workshop.rows(1)
    for path in ("/v1/studies", "/console/studies"):
        first = page.get(path)
        etag = {"If-None-Match": first.headers["ETag"]}
        unchanged = page.get(path, headers=etag)
        assert (unchanged.status_code, unchanged.data) == (304, b"")
        workshop.set(job_id, priority=workshop.job(job_id).priority + 1)
        assert page.get(path, headers=etag).status_code == 200


def test_the_page_shows_rows_and_the_way_to_others(page: FlaskClient, workshop: Workshop) -> None:
    jobs = workshop.rows(3)
    first, second, third = studies(workshop, jobs)
    shown = page.get("/console/studies?limit=2&state=ready").text
    assert f'href="/console/studies/{first}?from=limit%3D2%26state%3Dready"' in shown
    assert f'id="study-{second}"' in shown
    assert f'id="study-{third}"' not in shown
    assert f'rel="next" href="/console/studies?state=ready&amp;before={second}"' in shown
    older = page.get(f"/console/studies?state=ready&before={second}").text
    assert f'id="study-{third}"' in older
    assert f'rel="prev" href="/console/studies?state=ready&amp;after={third}"' in older


def test_a_study_has_its_neighbours_from_the_worklist_that_led_to_it(
    mine: Api, page: FlaskClient, workshop: Workshop
) -> None:
    jobs = workshop.rows(7)
    finish(workshop, {job_id: {"Nodule": 0.9} if number % 3 else {} for number, job_id in enumerate(jobs[:6])})
    with workshop.database.begin() as session:
        for job_id in jobs[1:5]:
            session.get_one(Image, session.get_one(Job, job_id).image_id).flags = ["rotated"]
    for job_id in jobs[2:]:
        workshop.set(job_id, priority=9)

    def beside(study_id: str, **query: object) -> tuple[str | None, str | None]:
        answer = page.get(f"/console/studies/{study_id}", query_string={"from": urlencode(query)})
        assert answer.status_code == 200
        return data_of(answer.text)["newer"], data_of(answer.text)["older"]

    for query, count in [
        ({}, 7),
        ({"state": "succeeded"}, 6),
        ({"finding": "Nodule", "flag": "rotated"}, 3),
        ({"finding": "Nodule", "priority": 9, "state": "succeeded"}, 3),
        ({"q": workshop.job(jobs[3]).study_id}, 1),
    ]:
        listed = found(mine, **query)
        assert len(listed) == count
        around = [None, *listed, None]
        # At which page the reader was makes no difference.
        place = {"limit": 2, "before": listed[0]}
        assert [beside(study_id, **query, **place) for study_id in listed] == list(
            zip(around[:-2], around[2:], strict=True)
        ), query
    # One that the list does not hold, or not any more, still has its place there.
    flagged = studies(workshop, jobs[1:5])
    outside = studies(workshop, jobs[5:6])[0]
    assert beside(outside, flag="rotated") == (None, flagged[0])
    assert beside(flagged[1], state="detecting") == (studies(workshop, jobs[6:])[0], None)
    assert beside(flagged[1], state="nonsense") == beside(flagged[1])


def test_a_form_s_empty_fields_leave_the_address(page: FlaskClient) -> None:
    answer = page.get("/console/studies?q=&state=failed&finding=&min_score=")
    assert (answer.status_code, answer.location) == (302, "/console/studies?state=failed")


def test_a_name_is_never_taken_for_markup(page: FlaskClient, workshop: Workshop) -> None:
    (job_id,) = workshop.rows(1)
    name = "<script>alert(1)</script>"
    with workshop.database.begin() as session:
        model = session.scalars(sa.select(Model).where(Model.state == ModelState.ACTIVE)).one()
        model.card = {"categories": [{"id": 1, "name": name}]}
    finish(workshop, {job_id: {name: 0.9}})
    workshop.set(job_id, state="rejected", code="<b>", reason='"><img src=x>')
    for query in ({}, {"finding": name}, {"finding": '"><script>'}, {"q": '"><script>'}):
        text = page.get("/console/studies", query_string=query).text
        assert "<script>" not in text
        assert "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.get("/console/studies").text


def test_an_empty_list_says_what_to_do(page: FlaskClient, workshop: Workshop) -> None:
    empty = page.get("/console/studies").text
    assert "No studies yet" in empty
    assert "carina submit" in empty
    assert "No model is active" not in empty
    assert "No study matches these filters" in page.get("/console/studies?state=failed").text
    assert "no older studies" in page.get(f"/console/studies?before={new_id()}").text
    with workshop.database.begin() as session:
        session.execute(sa.update(Model).values(state=ModelState.RETIRED))
    without = page.get("/console/studies").text
    assert "No model is active" in without
    assert "carina model demo" in without


def test_only_who_may_submit_is_offered_to(page: FlaskClient, workshop: Workshop) -> None:
    assert 'id="upload-files"' in page.get("/console/studies").text
    with workshop.database.begin() as session:
        key = create_key(session, project_name="workshop", name="looker", scopes=[Scope.READ])
    page.post("/console/sign-in", data={"key": key})
    looking = page.get("/console/studies").text
    assert "upload" not in looking
    assert "Your key can read but not submit" in looking


def test_many_jobs_are_asked_for_at_once(api: Api, keys: Keys, mine: Api, workshop: Workshop) -> None:
    jobs = workshop.rows(3)
    ids = [str(job_id) for job_id in jobs]
    answer = mine.get("/v1/jobs", id=[*ids[1:], new_id()]).get_json()
    assert [job["id"] for job in answer["jobs"]] == ids[1:]
    assert answer["jobs"][0] == mine.get(f"/v1/jobs/{ids[1]}").get_json()
    assert api.as_(keys.stranger).get("/v1/jobs", id=ids).get_json()["jobs"] == []
    for unfit in ([], ["1"], [new_id() for _ in range(101)]):
        assert mine.get("/v1/jobs", id=unfit).status_code == 422
