"""The worklist and the viewer show the probability of any finding where the active model estimates it."""

import re
from uuid import UUID

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from shared.database import Database
from shared.models import registry
from shared.object_store import ObjectStore
from shared.tables import Image, Job, Model
from tests.integration.conftest import Keys
from tests.integration.console.test_authority import add_newcomer
from tests.integration.console.test_viewer import add_shown_image, wait_until_shown
from tests.tiny_model import make_tiny_model

COLUMN = "Probability of a finding"


@pytest.fixture
def crowd(database: Database, store: ObjectStore, keys: Keys) -> dict[str, UUID]:
    """Studies of a model with an abnormality head by what the list shows of them, the newest last."""
    card, weights = make_tiny_model(abnormality_exponent=0.25)
    with database.begin() as session:
        model = registry.register(session, store, card, weights)
        registry.promote(session, model.id)
        model_id = model.id
    return {
        f"{abnormality:.2f}": add_rated_image(database, store, keys.both, seed, model_id, abnormality).study_id
        for seed, abnormality in enumerate((0.83, 0.03, 0.51))
    }


def add_rated_image(
    database: Database, store: ObjectStore, key: str, seed: int, model_id: UUID, abnormality: float
) -> Image:
    """Add an image with a result of a model and this probability."""
    image = add_shown_image(database, store, key, seed)
    with database.begin() as session:
        job = sa.update(Job).where(Job.image_id == image.id)
        session.execute(job.values(model_id=model_id, abnormality=abnormality, finished_at=sa.func.now()))
    return image


def shown(page: Page) -> list[str]:
    return page.locator("#list tbody tr > td:nth-child(4)").all_inner_texts()


def test_the_worklist_is_sorted_by_it(
    page: Page, crowd: dict[str, UUID], database: Database, store: ObjectStore, keys: Keys
) -> None:
    page.goto("/console/studies")
    assert shown(page) == ["0.51", "0.03", "0.83"]
    page.get_by_role("columnheader").get_by_role("link", name=COLUMN).click()
    page.wait_for_url("**order=abnormality**")
    assert shown(page) == ["0.83", "0.51", "0.03"]
    assert page.get_by_role("columnheader", name=COLUMN).get_attribute("aria-sort") == "descending"
    # The order stays when the list is narrowed, and new studies are announced wherever they belong.
    page.get_by_label("Minimum probability of a finding").fill("0.5")
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url("**min_abnormality=0.5**")
    assert shown(page) == ["0.83", "0.51"]
    with database.begin() as session:
        model_id = registry.active_id(session)
    add_rated_image(database, store, keys.both, 7, model_id, 0.625)
    page.get_by_role("button", name="1 new study").click()
    expect(page.locator("#list tbody tr")).to_have_count(3)
    assert shown(page) == ["0.83", "0.62", "0.51"]
    page.get_by_role("columnheader").get_by_role("link", name="Age").click()
    page.wait_for_url(re.compile("order=newest"))
    assert shown(page) == ["0.62", "0.51", "0.83"]


def test_the_viewer_states_it_and_turns_in_this_order(page: Page, crowd: dict[str, UUID]) -> None:
    page.goto("/console/studies?order=abnormality")
    page.locator("#list tbody tr").first.click()
    wait_until_shown(page, crowd["0.83"])
    note = page.get_by_role("group", name="Probability of any finding")
    expect(note).to_have_text("Probability of any finding: 0.83")
    page.keyboard.press("]")
    wait_until_shown(page, crowd["0.51"])
    expect(note).to_have_text("Probability of any finding: 0.51")
    page.keyboard.press("]")
    wait_until_shown(page, crowd["0.03"])
    expect(note).to_have_text("No finding: 0.97")


def test_without_such_a_model_nothing_is_shown_of_it(page: Page, crowd: dict[str, UUID], database: Database) -> None:
    newcomer = add_newcomer(database)
    with database.begin() as session:
        registry.promote(session, newcomer)
    page.goto("/console/studies")
    expect(page.get_by_role("columnheader", name="Top findings")).to_be_visible()
    assert COLUMN not in page.content()
    with database.begin() as session:
        session.execute(sa.update(Job).values(abnormality=None))
        assert session.scalar(sa.select(Model.state).where(Model.id == newcomer)) == "active"
    page.goto(f"/console/studies/{crowd['0.83']}")
    wait_until_shown(page, crowd["0.83"])
    expect(page.get_by_role("list", name="Findings")).to_be_visible()
    expect(page.get_by_role("group", name="Probability of any finding")).to_be_hidden()
