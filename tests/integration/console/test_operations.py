"""The console's pages for operators and scientists: queue, trainings, models, schedules."""

from collections.abc import Callable
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from api.console.comparison import Line, Value
from shared.database import Database
from shared.ids import new_id
from shared.settings import Settings
from shared.tables import Evaluation, GateDecision, Job, TrainingRun
from shared.training.config import GateConfig, TrainingConfig
from shared.training.schedules import create_schedule
from shared.vocabulary.states import JobState, ModelState, TaskState
from tests.integration.conftest import Api, Keys, Server, png
from tests.integration.rows import add_dataset, add_model, home

PAGES = ("/console/queue", "/console/training", "/console/models", "/console/schedules")


@pytest.fixture
def browse(make_api: Callable[[Settings], Api], settings: Settings) -> Callable[[str], FlaskClient]:
    """Sign a browser in with a key."""
    application = make_api(settings.model_copy(update={"session_secret": SecretStr("s" * 32)}))._http.application

    def sign_in(key: str) -> FlaskClient:
        browser = application.test_client()
        assert browser.post("/console/sign-in", data={"key": key}).status_code == 303
        return browser

    return sign_in


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def metrics(ap40: float) -> dict[str, object]:
    names = ("map40", "coco_ap", "coco_ap50", "froc_mean", "auroc")
    row = {"boxes": 7, "ap40": ap40, "ap40_low": ap40 - 0.05, "ap40_high": ap40 + 0.05}
    return {
        "images": 5,
        "boxes": 7,
        **{name: estimate(ap40) for name in names},
        "categories": [{"id": 0, "name": "Nodule/Mass", **row}, {"id": 1, "name": "Absent", **row, "boxes": 0}],
    }


@pytest.fixture
def ids(database: Database) -> dict[str, UUID]:
    """Two models that were evaluated on one set, one of them trained here from the other, and a schedule."""
    with database.begin() as session:
        dataset = add_dataset(session)
        first, second = add_model(session, "alpha", ModelState.ACTIVE), add_model(session, "beta <b>")
        for model, ap40 in ((first, 0.2), (second, 0.6)):
            done = {"state": TaskState.SUCCEEDED, "metrics": metrics(ap40), "report_sha256": "0" * 64}
            session.add(
                Evaluation(
                    project_id=home(session), model_id=model.id, dataset_id=dataset.id, config={"split": "val"}, **done
                )
            )
        schedule = create_schedule(
            session,
            project_id=home(session),
            name="nights",
            cron="30 3 * * *",
            time_zone="Asia/Tokyo",
            dataset_name="films",
            config=TrainingConfig(),
            gate=GateConfig(evaluation_dataset_id=dataset.id),
        )
        run = TrainingRun(
            project_id=home(session),
            name="beta's",
            dataset_id=dataset.id,
            config=TrainingConfig().model_dump(mode="json"),
            config_digest="c",
            state=TaskState.SUCCEEDED,
            model_id=second.id,
            initial_model_id=first.id,
            schedule_id=schedule.id,
            log_tail="secret of the log",
        )
        session.add(run)
        session.flush()
        decision = GateDecision(
            project_id=home(session),
            candidate_model_id=second.id,
            baseline_model_id=first.id,
            training_run_id=run.id,
            config={},
            state=TaskState.SUCCEEDED,
            promoted=False,
            explanation="Refused, and this is why.",
            figures={"gain": 0.4, "low": 0.31, "high": 0.52},
        )
        session.add(decision)
        return {"first": first.id, "second": second.id, "run": run.id, "dataset": dataset.id, "schedule": schedule.id}


def test_pages_are_there_before_anything_else_is(browse: Callable[[str], FlaskClient], keys: Keys) -> None:
    browser = browse(keys.admin)
    for path, words in zip(
        PAGES,
        ("No worker has been seen", "There are no trainings yet", "There is no model", "no schedules"),
        strict=True,
    ):
        page = browser.get(path)
        assert page.status_code == 200
        assert words in page.text, path


def test_who_may_only_read_is_offered_nothing_else(
    browse: Callable[[str], FlaskClient], keys: Keys, ids: dict[str, UUID]
) -> None:
    offers = {
        "/console/training": ['id="start"'],
        f"/console/training/{ids['run']}": ['id="cancel"', "secret of the log", "/report"],
        "/console/models": ["data-promote", "data-evaluate", 'id="roll-back"', "/report"],
        "/console/schedules": ["data-do=", 'id="add"'],
    }
    reader, admin = browse(keys.read), browse(keys.system)
    for path, marks in offers.items():
        for mark in marks:
            assert mark not in reader.get(path).text, (path, mark)
            assert mark in admin.get(path).text, (path, mark)


def test_the_queue_page_names_failures_of_this_project(
    browse: Callable[[str], FlaskClient], api: Api, keys: Keys, database: Database
) -> None:
    study_id = api.send(("image.png", png())).get_json()["files"][0]["study_id"]
    with database.begin() as session:
        failed = {"state": JobState.FAILED, "code": "worker_lost", "finished_at": sa.func.now()}
        session.execute(sa.update(Job).values(**failed))
    page = browse(keys.both).get("/console/queue").text
    assert "worker_lost" in page
    assert f'href="/console/studies/{study_id}"' in page
    assert "worker_lost" not in browse(keys.stranger).get("/console/queue").text


def test_a_training_shows_how_many_images_are_cached_until_all_are(
    server: Server, keys: Keys, database: Database, ids: dict[str, UUID], open_console: Callable[..., Page]
) -> None:
    progress = {"epoch": 0, "step": 5, "steps_in_epoch": 10, "steps_done": 5, "epochs": 3}
    lease = {"lease_owner": "trainer", "lease_expires_at": sa.func.now()}

    def report(cached: int) -> None:
        now = progress | {"images_cached": cached, "images_to_cache": 15_000}
        with database.begin() as session:
            session.execute(sa.update(TrainingRun).values(state=TaskState.RUNNING, progress=now, **lease))

    report(1_200)
    page = open_console(server.url, keys.admin)
    page.goto(f"/console/training/{ids['run']}")
    tile = page.locator(".tile", has_text="Steps")
    expect(tile).to_contain_text("1,200 of 15,000 images cached")
    report(3_400)
    expect(tile).to_contain_text("3,400 of 15,000 images cached")
    report(15_000)
    expect(tile).not_to_contain_text("cached")


def test_a_training_leads_to_what_it_comes_from_and_what_came_of_it(
    browse: Callable[[str], FlaskClient], keys: Keys, ids: dict[str, UUID]
) -> None:
    page = browse(keys.admin).get(f"/console/training/{ids['run']}").text
    for mark in (
        f"/console/models#{ids['first']}",
        f"/console/models#{ids['second']}",
        f"/console/schedules#{ids['schedule']}",
        "beta &lt;b&gt;",
        "mAP@0.4 0.600",
        "Refused, and this is why.",
    ):
        assert mark in page
    assert browse(keys.admin).get(f"/console/training/{new_id()}").status_code == 404
    assert browse(keys.admin).get("/console/training?before=yesterday").status_code == 422


def test_readers_stand_beside_the_models(
    browse: Callable[[str], FlaskClient], keys: Keys, ids: dict[str, UUID], database: Database
) -> None:
    """An evaluation of an earlier version has no scores of readers, and can still be compared."""
    human = {"images": 5, "one_reader": 0.225, "one_reader_with_no_finding": 0.276, "others": 0.319}
    with database.begin() as session:
        changed = sa.update(Evaluation).where(Evaluation.model_id == ids["second"])
        session.execute(changed.values(metrics=metrics(0.6) | {"human": human}))
    page = browse(keys.admin).get("/console/models").text
    assert 'One reader, VinBigData score (3 classes)</dt><dd class="figure">0.276' in page
    assert page.count("Other readers together") == 1
    compared = browse(keys.admin).get(f"/console/models/compare?first={ids['first']}&second={ids['second']}")
    assert compared.status_code == 200


def test_two_models_are_compared_class_by_class(
    browse: Callable[[str], FlaskClient], keys: Keys, ids: dict[str, UUID], database: Database
) -> None:
    browser = browse(keys.read)
    path = f"/console/models/compare?first={ids['first']}&second="
    page = browser.get(path + str(ids["second"])).text
    row = page.split("Nodule/Mass")[1].split("</tr>")[0]
    for figure in ("0.200", "0.150 to 0.250", "0.600", "0.550 to 0.650", "+0.400", "better"):
        assert figure in row
    assert "Absent" not in page, "a class without a true box has nothing to compare"
    assert "+0.310 to +0.520" in page, "the gate's paired interval"
    assert "style=" not in page
    with database.begin() as session:
        other = add_model(session, "gamma").id
    assert "have not been evaluated on the same images" in browser.get(path + str(other)).text
    assert browser.get(path + str(new_id())).status_code == 404
    assert browser.get(path + "newest").status_code == 422


def test_intervals_say_whether_they_meet() -> None:
    apart = Line("a", Value(0.2, 0.1, 0.3), Value(0.5, 0.4, 0.6))
    touching = Line("a", Value(0.2, 0.1, 0.4), Value(0.5, 0.4, 0.6))
    unknown = Line("a", Value(0.2), Value(None))
    assert (apart.intervals_meet, touching.intervals_meet, unknown.intervals_meet) == (False, True, None)
    assert (apart.difference, unknown.difference) == (pytest.approx(0.3), None)


def test_a_schedules_next_run_is_told_on_its_own_clocks(
    browse: Callable[[str], FlaskClient], keys: Keys, ids: dict[str, UUID]
) -> None:
    page = browse(keys.read).get("/console/schedules").text
    assert " 03:30</strong> Asia/Tokyo" in page
    assert "30 3 * * *" in page
