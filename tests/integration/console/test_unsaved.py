"""What a reader says in the viewer is lost by no crash of the API, no lost answer and no end of the session."""

import json
import os
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from uuid import UUID

import httpx
import psutil
import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, Route, expect

from api.client import Carina
from shared.database import Database
from shared.object_store import ObjectStore
from shared.tables import ConsoleSession, Image
from shared.vocabulary.review_actions import ReviewAction, Verdict
from tests.integration.conftest import Keys, _await_health
from tests.integration.console.test_viewer import add_shown_image, wait_until_shown
from tests.integration.forked import start_api
from tests.ports import free_port
from tests.waiting import DEADLINE_S, wait_for


class MortalApi:
    """The served API, which is killed and started again at the same address."""

    process: ForkServerProcess

    def __init__(self, environ: dict[str, str]) -> None:
        self._port = free_port()
        self._environ = os.environ | environ | {"CARINA_API_PORT": str(self._port)}
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self.process = start_api(self._environ, "")
        _await_health(self.process, self._port)

    def kill(self) -> None:
        arbiter = psutil.Process(self.process.pid)
        for process in (arbiter, *arbiter.children(recursive=True)):
            process.kill()
        self.process.join(DEADLINE_S)


@pytest.fixture
def mortal(environ: dict[str, str], settings: object) -> Iterator[MortalApi]:
    api = MortalApi(environ)
    api.start()
    yield api
    api.process.terminate()
    api.process.join(DEADLINE_S)


@pytest.fixture
def reader(mortal: MortalApi, keys: Keys) -> Iterator[Carina]:
    client = Carina(mortal.url, keys.both)
    yield client
    client.close()


@pytest.fixture
def page(mortal: MortalApi, keys: Keys, image: Image, open_console: Callable[..., Page]) -> Page:
    """The viewer with the image."""
    page = open_console(mortal.url, keys.both, may_fail=True)
    page.goto(f"/console/studies/{image.study_id}")
    wait_until_shown(page, image.study_id)
    return page


def say(page: Page, number: int, key: str) -> None:
    page.get_by_role("list", name="Findings").get_by_role("button").nth(number).click()
    page.keyboard.press(key)


def draw(page: Page) -> None:
    page.keyboard.press("d")
    image = page.get_by_role("application", name="Image", exact=True)
    image.press("Enter")
    image.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Mass", exact=True).click()


def standing(page: Page, words: str) -> None:
    expect(page.locator("#unsaved span")).to_have_text(words)


def said(reader: Carina, image_id: UUID) -> list[tuple[str, str | None]]:
    return [(event.action.value, event.finding_id) for event in reader.review(image_id).events]


def kept(page: Page) -> list[dict]:
    return [json.loads(text) for text in page.evaluate("() => Object.values({ ...localStorage })")]


def test_nothing_is_lost_when_the_api_is_killed(page: Page, mortal: MortalApi, image: Image, reader: Carina) -> None:
    say(page, 0, "a")
    standing(page, "Saved")
    assert kept(page) == []
    mortal.kill()
    say(page, 1, "x")
    standing(page, "Offline: 1 verdict not saved")
    page.get_by_role("button", name="Mass, score 0.50, 21 × 60 mm, rejected").wait_for()
    draw(page)
    standing(page, "Offline: 2 verdicts not saved")
    drawn = page.get_by_role("button", name="Mass, score drawn")
    drawn.click()
    page.keyboard.press("x")  # of a box that has no number yet
    standing(page, "Offline: 3 verdicts not saved")
    # Ids, verdicts and boxes: no picture, no name.
    assert {key for entry in kept(page) for key in entry} == {
        *("reader", "id", "at", "study_id", "image_id", "job_id"),
        *("path", "said", "words", "seen", "mine", "after", "looks"),
    }
    mortal.start()
    standing(page, "Saved")
    assert said(reader, image.id) == [
        ("accept", "model-0"),
        ("reject", "model-1"),
        ("draw", "drawn-3"),
        ("reject", "drawn-3"),
    ]
    assert kept(page) == []
    expect(page.locator("#trouble")).to_be_hidden()


def test_what_waits_is_sent_after_the_page_was_closed(page: Page, image: Image, reader: Carina) -> None:
    page.context.set_offline(True)
    say(page, 0, "x")
    say(page, 1, "a")
    standing(page, "Offline: 2 verdicts not saved")
    page.goto("about:blank")
    page.context.set_offline(False)
    assert said(reader, image.id) == []
    page.goto("/console/models")  # any page sends it
    standing(page, "Saved")
    assert said(reader, image.id) == [("reject", "model-0"), ("accept", "model-1")]


def test_an_answer_that_is_lost_leads_to_no_second_event(page: Page, image: Image, reader: Carina) -> None:
    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/reviews", lose)
    draw(page)
    standing(page, "Offline: 1 verdict not saved")
    wait_for(lambda: said(reader, image.id))
    page.unroute("**/reviews")
    standing(page, "Saved")
    assert said(reader, image.id) == [("draw", "drawn-1")]


@pytest.mark.parametrize("status", [200, 404])
def test_what_a_proxy_answers_in_place_of_the_server_saves_and_refuses_nothing(
    page: Page, image: Image, reader: Carina, status: int
) -> None:
    page.route("**/reviews", lambda route: route.fulfill(status=status, content_type="text/html", body="<p>Hello</p>"))
    say(page, 0, "x")
    standing(page, "1 verdict not saved")
    page.unroute("**/reviews")
    standing(page, "Saved")
    assert said(reader, image.id) == [("reject", "model-0")]


def test_what_another_tab_said_and_took_back_is_said_again(page: Page, image: Image, reader: Carina) -> None:
    page.context.set_offline(True)
    say(page, 0, "x")
    standing(page, "Offline: 1 verdict not saved")
    reader.undo_review(reader.add_to_review(reader.review(image.id), ReviewAction.REJECT, "model-0"))
    page.context.set_offline(False)
    question = page.get_by_role("dialog", name="Another reader has changed this review")
    question.get_by_role("button", name="Save mine").click()
    standing(page, "Saved")
    assert reader.review(image.id).findings[0].verdict == Verdict.REJECTED


def test_a_verdict_on_an_erased_image_holds_up_no_other_one(
    page: Page, image: Image, reader: Carina, database: Database, store: ObjectStore, keys: Keys, mortal: MortalApi
) -> None:
    other = add_shown_image(database, store, keys.both, 1)
    page.context.set_offline(True)
    say(page, 0, "x")
    standing(page, "Offline: 1 verdict not saved")
    name, text = page.evaluate("() => Object.entries({ ...localStorage })[0]")
    entry = json.loads(text)
    # Older than the server's memory of keys, so that the review is looked at before.
    page.evaluate(
        "([name, text]) => localStorage.setItem(name, text)", [name, json.dumps(entry | {"at": 0, "after": 0})]
    )
    with Carina(mortal.url, keys.admin) as admin:
        admin.erase_study(image.study_id)
    page.goto("about:blank")
    page.context.set_offline(False)
    page.goto(f"/console/studies/{other.study_id}")
    wait_until_shown(page, other.study_id)
    say(page, 1, "a")
    standing(page, "Saved")
    assert said(reader, other.id) == [("accept", "model-1")]
    assert kept(page) == []


def test_a_session_that_ends_leads_back_and_nobody_else_sends_it(
    page: Page, mortal: MortalApi, keys: Keys, image: Image, reader: Carina, database: Database
) -> None:
    page.context.set_offline(True)
    say(page, 0, "x")
    standing(page, "Offline: 1 verdict not saved")
    with database.begin() as session:
        session.execute(sa.delete(ConsoleSession))
    cookies = {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}
    wait_for(lambda: httpx.get(f"{mortal.url}/v1/models", cookies=cookies).status_code == 401)
    page.context.set_offline(False)
    page.wait_for_url("**/console/sign-in?next=**")

    def sign_in(key: str) -> None:
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"**/console/studies/{image.study_id}")
        wait_until_shown(page, image.study_id)
        page.wait_for_load_state()

    sign_in(keys.admin)
    page.get_by_role("button", name="Mass, score 0.90, 20 × 60 mm, not decided").wait_for()
    say(page, 1, "a")
    standing(page, "Saved")
    assert said(reader, image.id) == [("accept", "model-1")]
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/console/sign-in")
    page.goto(f"/console/sign-in?next=/console/studies/{image.study_id}")
    sign_in(keys.both)
    standing(page, "Saved")
    assert said(reader, image.id) == [("accept", "model-1"), ("reject", "model-0")]


@pytest.mark.parametrize("choice", ["Save mine", "Keep theirs", "Decide later"])
def test_who_meets_anothers_word_sees_both_and_chooses(
    page: Page, mortal: MortalApi, keys: Keys, image: Image, reader: Carina, choice: str
) -> None:
    page.context.set_offline(True)
    say(page, 0, "x")
    say(page, 1, "a")
    standing(page, "Offline: 2 verdicts not saved")
    with Carina(mortal.url, keys.admin) as colleague:
        colleague.add_to_review(colleague.review(image.id), ReviewAction.ACCEPT, "model-0")
    page.context.set_offline(False)
    question = page.get_by_role("dialog", name="Another reader has changed this review")
    expect(question).to_contain_text("Mass rejected")
    expect(question).to_contain_text("admin accepted Mass (box 5, 6, 25, 36 px)")
    question.get_by_role("button", name=choice).click()
    if choice == "Decide later":
        standing(page, "2 verdicts not saved")
        page.get_by_role("button", name="Sign out").click()
        warning = page.get_by_role("dialog", name="Sign out and lose 2 unsaved verdicts?")
        warning.get_by_role("button", name="Cancel").click()
        assert len(kept(page)) == 2
        page.get_by_role("button", name="Sign out").click()
        warning.get_by_role("button", name="Sign out and lose them").click()
        page.wait_for_url("**/console/sign-in")
        assert kept(page) == []
        assert said(reader, image.id) == [("accept", "model-0")]
        return
    standing(page, "Saved")
    first, second, _ = reader.review(image.id).findings
    is_mine = choice == "Save mine"
    assert (first.verdict, second.verdict) == (Verdict.REJECTED if is_mine else Verdict.ACCEPTED, Verdict.ACCEPTED)
    assert len(said(reader, image.id)) == (3 if is_mine else 2)
    expect(page.get_by_role("list", name="Findings").get_by_role("button").first).to_have_attribute(
        "aria-label", f"Mass, score 0.90, 20 × 60 mm, {'rejected' if is_mine else 'accepted'}"
    )
