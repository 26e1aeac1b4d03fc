"""Real servers for every test that asks: one stack a test process, a fresh database, bucket and Redis a test."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
import torch
from hypothesis import settings as hypothesis_settings
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from psycopg import sql

from deploy.stack import env_file
from shared import migrations
from shared.database import Database
from shared.detector.demo import load_demo_model
from shared.ids import new_id
from shared.models import registry
from shared.object_store import ObjectStore
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import Model
from tests import requirements
from tests.requirements import REPOSITORY, needs
from tests.waiting import DEADLINE_S

#: Variables, in lower case, that change what a program prints or where it connects to.
MISLEADING = {
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "force_color", "no_color", "clicolor_force", "py_colors"),
    *("tty_compatible", "tty_interactive", "github_actions"),
}
#: The database that a test's own is copied from.
TEMPLATE = "carina_template"
#: A test's speed is that of its machine.
hypothesis_settings.register_profile("any machine", deadline=None)
hypothesis_settings.load_profile("any machine")
#: How long a browser waits for what it is to find.
BROWSER_MS = DEADLINE_S * 1000
#: No data outlives a test: PostgreSQL neither waits for the disk nor reads files through its own memory to copy them.
FORGETFUL = ("fsync = off", "full_page_writes = off", "synchronous_commit = off", "file_copy_method = clone")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark `needs`, and give every test the same environment, whatever this process was started in."""
    config.pluginmanager.register(requirements)
    for name in list(os.environ):
        if name.startswith("CARINA_") or name.lower() in MISLEADING:
            del os.environ[name]
    # A shell has the commands that it starts in the background ignore it, and these have all their children do so.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # There is a test process for each core, and PyTorch's threads wait busily.
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "80", "LINES": "24"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many test processes to run: half of a test's time is waiting, for servers, processes and browsers.

    A test process, its servers and its children take 1 to 2.5 GB of memory. On two cores four whole stacks at once were
    so slow that none of their tests ended.
    """
    fitting = psutil.virtual_memory().available // (3 * 1024**3)
    return min((os.cpu_count() or 1) * 3 // 2, max(1, fitting))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """PostgreSQL, Redis and an object store; yields the variables that point at them."""
    data = tmp_path_factory.mktemp("servers")
    command = [sys.executable, "-m", "deploy.cli", "up", "--servers-only", "--data", str(data)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as stack:
        try:
            assert stack.stdout is not None
            said = []
            for line in stack.stdout:
                said.append(line)
                if line.startswith("ready"):
                    break
            else:
                pytest.fail("The servers did not come up:\n" + "".join(said))
            yield env_file.read(data / "env")
        finally:
            stack.send_signal(signal.SIGTERM)
            stack.communicate(timeout=DEADLINE_S)


@pytest.fixture(scope="session")
def template(servers: dict[str, str]) -> str:
    """Make a migrated, empty database, so that each test can have a copy; return its name."""
    base = servers["CARINA_DATABASE_URL"].rpartition("/")[0]
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        for setting in FORGETFUL:
            connection.execute(f"ALTER SYSTEM SET {setting}")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    database = Database(f"{base}/{TEMPLATE}")
    migrations.upgrade(database)
    database.close()
    return TEMPLATE


@pytest.fixture
def environ(servers: dict[str, str], template: str) -> Iterator[dict[str, str]]:
    """The variables of this test's own database, bucket and (emptied) Redis, to hand to a child process."""
    name = f"test_{new_id().hex}"
    base = servers["CARINA_DATABASE_URL"].rpartition("/")[0]
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        redis.Redis.from_url(servers["CARINA_REDIS_URL"]).flushall()
        yield servers | {"CARINA_DATABASE_URL": f"{base}/{name}", "CARINA_S3_BUCKET": name.replace("_", "-")}
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def settings(environ: dict[str, str]) -> Settings:
    """Settings that point at this test's own, empty servers."""
    made = Settings.from_env(environ)
    ObjectStore(made).ensure_bucket()
    return made


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """This test's database: migrated, and empty."""
    connected = Database.from_settings(settings)
    yield connected
    connected.close()


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    """This test's bucket."""
    return ObjectStore(settings)


@pytest.fixture
def demo_model(database: Database, store: ObjectStore) -> Model:
    """The shipped model, registered and active."""
    with database.begin() as session:
        model = registry.promote(session, registry.register(session, store, *load_demo_model()).id)
        session.flush()
        session.refresh(model)
        session.expunge(model)
    return model


@pytest.fixture
def hints(settings: Settings, database: Database) -> Hints:
    """Sends hints into this test's Redis."""
    return Hints(settings, database)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images beside the checkout."""
    return needs("shared/data")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for all tests of a module; Playwright's event loop ends with it, for other modules run their own."""
    path = needs("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=BROWSER_MS)
        yield browser
        browser.close()


@pytest.fixture
def open_console(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Sign in to the console of an API, by its URL and a key; whatever the page complains of ends the test.

    With `may_fail` requests may: the browser's own line about an answer such as 422, or about none, is no complaint.
    Each page has cookies and storage of its own.
    """
    complaints: list[str] = []
    expect.set_options(timeout=BROWSER_MS)

    def sign_in(url: str, key: str, *, may_fail: bool = False) -> Page:
        def hear(line: ConsoleMessage) -> None:
            is_request = line.text.startswith("Failed to load resource")
            if line.type in ("error", "warning") and not (may_fail and is_request):
                complaints.append(line.text)

        size = {"width": 1440, "height": 900}
        page = chromium.new_page(base_url=url, viewport=size, ignore_https_errors=True)
        page.set_default_timeout(BROWSER_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", hear)
        page.goto(f"{url}/")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Studies", exact=True).wait_for()
        page.wait_for_load_state()  # its scripts, which listen for what a test does next
        return page

    yield sign_in
    for context in chromium.contexts:
        context.close()
    assert complaints == []
