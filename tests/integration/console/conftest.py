"""What several tests of the console begin with."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page

from api.client import Carina
from shared.database import Database
from shared.object_store import ObjectStore
from shared.tables import Image
from tests.integration.conftest import Keys, Server
from tests.integration.console.test_viewer import add_shown_image


@pytest.fixture
def image(database: Database, store: ObjectStore, keys: Keys) -> Image:
    """An image with findings."""
    return add_shown_image(database, store, keys.both, 0)


@pytest.fixture
def reader(server: Server, keys: Keys) -> Iterator[Carina]:
    """The reader's own client, whose events the page shows as theirs."""
    client = Carina(server.url, keys.both)
    yield client
    client.close()


@pytest.fixture
def page(server: Server, keys: Keys, open_console: Callable[..., Page]) -> Page:
    """A page of a reader who is signed in."""
    return open_console(server.url, keys.both)
