"""The console's dialogs: what is wrong with a field stands beside it, and the person is taken there."""

import re
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from playwright.sync_api import Locator, Page, expect

from shared.access.keys import verify_key
from shared.database import Database
from shared.tables import Dataset, Schedule
from shared.training.config import TrainingConfig
from shared.training.schedules import create_schedule
from tests.integration.conftest import Keys, Server
from tests.integration.rows import add_dataset, add_model


@pytest.fixture
def page(server: Server, keys: Keys, database: Database, open_console: Callable[..., Page]) -> Page:
    """A page of somebody who may do everything, as large as a phone held across; a model and a dataset are there."""
    with database.begin() as session:
        project_id = verify_key(session, keys.system).project_id
        add_dataset(session).project_id = project_id
        add_model(session, "alpha")
        create_schedule(
            session,
            project_id=project_id,
            name="nights",
            cron="30 3 * * *",
            time_zone="Asia/Tokyo",
            dataset_name="no such dataset",
            config=TrainingConfig(),
        )
    page = open_console(server.url, keys.system, may_fail=True)
    page.set_viewport_size({"width": 700, "height": 400})
    return page


def is_blamed(field: Locator, words: str) -> None:
    """The error stands directly behind the field, which has the focus, is in sight, and tells a screen reader."""
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(field).to_be_in_viewport(ratio=1)
    beside = field.locator("xpath=(self::*|ancestor::label)[1]/following-sibling::*[1]")
    expect(beside).to_contain_text(re.compile(words))
    expect(beside).to_be_in_viewport(ratio=1)
    described_by = (field.get_attribute("aria-describedby") or "").split()
    assert beside.get_attribute("id") in described_by


def test_a_schedules_dialog_says_beside_each_field_what_is_wrong(page: Page, keys: Keys) -> None:
    page.goto("/console/schedules")
    page.get_by_role("button", name="Add a schedule").click()
    dialog = page.get_by_role("dialog")
    save = dialog.get_by_role("button", name="Save")
    name, cron, zone = (dialog.get_by_label(label, exact=True) for label in ("Name", "When (cron)", "Time zone"))
    config = dialog.get_by_label("Settings to change, as JSON")

    save.click()  # what the browser finds
    is_blamed(name, "Fill in this field")
    expect(cron).to_have_attribute("aria-invalid", "true")  # each is said, and the first one is gone to
    name.fill("nights")
    expect(name).not_to_have_attribute("aria-invalid", "true")
    cron.fill("99 3 * * *")
    zone.fill("Europe/Atlantis")
    dialog.get_by_label("Dataset name").fill("films")
    config.evaluate("field => { field.value = '{\"epochs\": }'; }")
    dialog.locator("details").evaluate("folded => { folded.open = false; }")
    save.click()  # what the page finds, in a field that is folded away
    is_blamed(config, "This is not valid JSON")
    config.fill('{"epochs": 0}')
    dialog.locator("details").evaluate("folded => { folded.open = false; }")
    save.click()  # and what the API finds, one after the other
    is_blamed(config, "greater than or equal to 1")
    config.fill("")
    dialog.get_by_label("Epochs").fill("0")
    save.click()
    is_blamed(dialog.get_by_label("Epochs"), "1")
    dialog.get_by_label("Epochs").fill("")
    save.click()
    is_blamed(zone, "There is no time zone 'Europe/Atlantis'")
    zone.fill("Europe/Berlin")
    save.click()
    is_blamed(cron, "The cron expression '99 3")
    assert set(cron.get_attribute("aria-describedby").split()) == {"cron-hint", "cron-error"}
    cron.fill("0 3 * * 0")
    assert cron.get_attribute("aria-describedby") == "cron-hint"
    save.click()
    is_blamed(name, "A schedule 'nights' exists already")
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Add a schedule").click()
    expect(page.locator("[aria-invalid]")).to_have_count(0)


@pytest.mark.parametrize(
    ("path", "opens", "sends"), [("training", "Start a training", "Start"), ("models", "Evaluate", "Evaluate")]
)
def test_what_went_meanwhile_is_said_beside_its_field(
    page: Page, database: Database, path: str, opens: str, sends: str
) -> None:
    page.goto(f"/console/{path}")
    page.get_by_role("button", name=opens).click()
    with database.begin() as session:
        session.execute(sa.delete(Dataset))
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=sends, exact=True).click()
    is_blamed(dialog.get_by_label("Dataset", exact=True), "There is no dataset")


def test_a_question_stays_open_and_says_why_it_was_refused(page: Page, database: Database) -> None:
    page.goto("/console/schedules")
    page.get_by_role("button", name="Run now nights").click()
    question = page.get_by_role("dialog", name="Run nights now?")
    question.get_by_role("button", name="Run now").click()
    expect(question.get_by_role("alert")).to_contain_text(
        "there is no dataset 'no such dataset' whose import has succeeded"
    )
    expect(question.get_by_role("alert").locator("code")).to_have_text("not_ready")
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_have_count(0)
    with database.begin() as session:
        session.execute(sa.delete(Schedule))
    page.get_by_role("button", name="Delete nights").click()
    question = page.get_by_role("dialog", name="Delete nights?")
    question.get_by_role("button", name="Delete").click()
    expect(question.get_by_role("alert").locator("code")).to_have_text("not_found")


def test_a_key_that_is_not_valid_is_said_at_its_field(page: Page, server: Server) -> None:
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").fill("carina_0_0")
    page.get_by_role("button", name="Sign in").click()
    is_blamed(page.get_by_label("API key"), "The API key is not valid")


@pytest.mark.parametrize("path", ["training", "models", "schedules"])
def test_every_form_of_a_dialog_goes_the_same_way(page: Page, path: str) -> None:
    page.goto(f"/console/{path}")
    forms = page.locator("dialog form:has(input:not([type=hidden]), select, textarea)")
    expect(forms).to_have_count(1)
    assert forms.evaluate_all("forms => forms.every((form) => form.noValidate)")
