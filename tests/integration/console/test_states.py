"""Every page of the console while it loads, is empty, fails, is offline, and when the session has ended."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect
from psycopg import sql

from shared.access.keys import verify_key
from shared.database import Database
from shared.object_store import ObjectStore
from shared.tables import ConsoleSession, TrainingRun
from shared.training.config import TrainingConfig
from shared.vocabulary.states import TaskState
from tests.integration.conftest import Api, Keys, Server
from tests.integration.console.test_viewer import add_shown_image
from tests.integration.rows import add_dataset, add_image, add_model
from tests.requirements import REPOSITORY
from tests.waiting import wait_for

#: The console's pages by their rules, each with the address of one (of `ids`), what it shows when it has loaded, and
#: what an empty one says is to be done. A page that is missing here fails the first test.
PAGES = {
    "/console/studies": ("/console/studies", "heading", "Studies", "Drop chest radiographs"),
    "/console/studies/<uuid:study_id>": (
        "/console/studies/{study}",
        "list",
        "Findings",
        "There is no job for this image",
    ),
    "/console/queue": ("/console/queue", "heading", "Queue", "carina worker"),
    "/console/training": ("/console/training", "heading", "Training", "carina dataset import"),
    "/console/training/<uuid:training_id>": ("/console/training/{run}", "heading", "nightly", None),
    "/console/models": ("/console/models", "heading", "Models", "carina model import"),
    "/console/models/compare": (
        "/console/models/compare?first={first}&second={second}",
        "heading",
        "alpha and beta",
        "Evaluate both on one dataset and split",
    ),
    "/console/schedules": ("/console/schedules", "heading", "Schedules", "“Add a schedule” above"),
}
#: Lead elsewhere, sign in, or say that there is no such page.
NO_PAGES = {"/console/", "/console/sign-in", "/console/<path:_>", "/console/static/<digest>/<path:path>"}
KIB_PER_S, LATENCY_MS = 40, 400


@pytest.fixture
def ids(database: Database, store: ObjectStore, keys: Keys) -> dict[str, UUID]:
    """One of everything."""
    image = add_shown_image(database, store, keys.both, 0)
    with database.begin() as session:
        dataset = add_dataset(session)
        config = TrainingConfig().model_dump(mode="json")
        named = {"project_id": image.project_id, "name": "nightly", "dataset_id": dataset.id}
        run = TrainingRun(**named, config=config, config_digest="c", state=TaskState.QUEUED)
        session.add(run)
        session.flush()
        first, second = add_model(session, "alpha"), add_model(session, "beta")
        return {"study": image.study_id, "run": run.id, "first": first.id, "second": second.id}


@pytest.fixture
def page(server: Server, keys: Keys, open_console: Callable[..., Page]) -> Page:
    return open_console(server.url, keys.system, may_fail=True)


def shows(page: Page, rule: str) -> None:
    _, role, name, _ = PAGES[rule]
    page.get_by_role(role, name=re.compile(f"^{name}")).first.wait_for()
    expect(page.locator("body[data-loading]")).to_have_count(0)


@contextmanager
def broken(environ: dict[str, str]) -> Iterator[None]:
    """A database that takes nobody in."""
    base, _, name = environ["CARINA_DATABASE_URL"].rpartition("/")
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        yield
        connection.execute(allow.format(sql.Identifier(name), sql.SQL("true")))


def test_every_page_is_among_these(api: Api) -> None:
    rules = {rule.rule for rule in api._http.application.url_map.iter_rules() if "GET" in (rule.methods or ())}
    assert {rule for rule in rules if rule.startswith("/console/")} - NO_PAGES == PAGES.keys()


@pytest.mark.parametrize("rule", PAGES)
def test_a_page_says_that_it_loads_on_a_slow_line_that_it_is_offline_and_leads_back_after_a_sign_in(
    page: Page, server: Server, keys: Keys, database: Database, ids: dict[str, UUID], rule: str
) -> None:
    address = PAGES[rule][0].format(**ids)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    bytes_per_s = KIB_PER_S * 1024
    speed = {"downloadThroughput": bytes_per_s, "uploadThroughput": bytes_per_s, "latency": LATENCY_MS}
    devtools.send("Network.emulateNetworkConditions", {"offline": False, **speed})
    page.add_init_script(
        """(function look() {
            const loading = document.getElementById("loading");
            const style = loading && getComputedStyle(loading);
            if (style?.display === "block" && style.opacity === "1") window.hasSaidLoading = true;
            requestAnimationFrame(look);
        })()"""
    )
    page.goto(address)
    shows(page, rule)
    assert page.evaluate("window.hasSaidLoading"), "a slow page looked as if it were broken"
    no_limit = {"downloadThroughput": -1, "uploadThroughput": -1, "latency": 0}
    devtools.send("Network.emulateNetworkConditions", {"offline": False, **no_limit})

    page.context.set_offline(True)
    trouble = page.locator("#trouble")
    expect(trouble).to_contain_text("This device is offline. offline")
    expect(trouble.get_by_role("button", name="Try again")).to_be_visible()
    page.get_by_role("link", name="Carina", exact=True).click()  # not to the browser's own error page
    expect(trouble).to_be_visible()
    page.context.set_offline(False)
    expect(trouble).to_be_hidden()
    shows(page, rule)

    with database.begin() as session:
        session.execute(sa.delete(ConsoleSession))
    wait_for(lambda: page.context.request.get(f"{server.url}/v1/models").status == 401)
    page.goto(address)
    page.wait_for_url("**/console/sign-in?next=**")
    page.get_by_label("API key").fill(keys.system)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**{address}")
    shows(page, rule)


def test_a_page_says_why_it_cannot_be_shown_and_can_be_tried_again(
    page: Page, environ: dict[str, str], ids: dict[str, UUID]
) -> None:
    again = page.get_by_role("link", name="Try again")

    def fails(address: str) -> bool:
        answer = page.goto(address)
        return answer is not None and answer.status == 503

    with broken(environ):
        for address, *_ in PAGES.values():
            wait_for(lambda address=address: fails(address.format(**ids)))  # who is signed in is known for some seconds
            expect(page.locator("main p").first).to_have_text(re.compile(r"\w+.*\.$"))
            expect(page.locator("main code")).to_have_text("database_unavailable")
            expect(again).to_be_visible()
    again.click()
    shows(page, "/console/schedules")  # the last one


def test_live_pages_say_that_they_no_longer_are(page: Page, environ: dict[str, str], ids: dict[str, UUID]) -> None:
    trouble = page.locator("#trouble")
    for rule in ("/console/studies", "/console/queue", "/console/training", "/console/training/<uuid:training_id>"):
        page.goto(PAGES[rule][0].format(**ids))
        shows(page, rule)
        with broken(environ):
            expect(trouble.locator("code")).to_have_text("database_unavailable")
            expect(trouble.get_by_role("button", name="Try again")).to_be_visible()
        expect(trouble).to_be_hidden()  # by itself


def test_a_page_that_asks_nothing_notices_that_the_server_is_gone(page: Page, server: Server) -> None:
    page.goto("/console/models")
    shows(page, "/console/models")
    for process in (server.arbiter, *server.arbiter.children(recursive=True)):
        process.kill()
    expect(page.locator("#trouble")).to_contain_text("The server cannot be reached. unreachable")
    page.locator("#trouble").get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Models", exact=True)).to_be_visible()


def test_an_empty_page_says_what_to_do(page: Page, keys: Keys, database: Database) -> None:
    for address, *_, words in PAGES.values():
        ids = {}
        with database.begin() as session:
            if "{study}" in address:
                ids["study"] = add_image(session, verify_key(session, keys.both).project_id).study_id
            if "{first}" in address:
                ids = {name: add_model(session, name).id for name in ("first", "second")}
        if words:
            page.goto(address.format(**ids))
            expect(page.locator("main")).to_contain_text(words)


def test_a_image_that_cannot_be_had_is_tried_again(page: Page, ids: dict[str, UUID], settings: object) -> None:
    page.route("**/rendition.png", lambda route: route.abort())
    page.goto(f"/console/studies/{ids['study']}")
    said = page.get_by_role("application", name="Image", exact=True).get_by_role("alert")
    expect(said).to_contain_text("The image cannot be shown. The server cannot be reached. (unreachable)")
    page.unroute("**/rendition.png")
    page.get_by_role("button", name="Try again").last.click()
    expect(said).to_have_count(0)
    page.get_by_text(re.compile(r"W \d+ L \d+")).wait_for()


def test_each_script_asks_the_server_in_one_way_only() -> None:
    """What the shared script does not know of can say neither that it fails nor that the session has ended."""
    scripts = REPOSITORY / "api/console/static/js"
    asking = [path.name for path in scripts.rglob("*.js") if re.search(r"\bfetch\(", path.read_text())]
    assert asking == ["api.js"]
