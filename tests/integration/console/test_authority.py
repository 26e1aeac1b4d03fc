"""The console shows the active model's findings first, names other models, and shows what models' cards warn of."""

import hashlib
from uuid import UUID

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from shared.database import Database
from shared.models import registry
from shared.object_store import ObjectStore
from shared.tables import Detection, Image, Job, Model
from shared.version import RENDITION_VERSION
from shared.vocabulary.states import JobState
from tests.integration.conftest import Keys
from tests.integration.console.test_viewer import add_shown_image, wait_until_shown
from tests.integration.rows import add_job, add_model
from tests.tiny_model import CATEGORIES

DEMO = "It was made for a <demonstration>."
OTHER = "It is for children only."


@pytest.fixture
def stored(database: Database, store: ObjectStore, keys: Keys) -> Image:
    """An image on which the active model, which is called veteran, has found three boxes."""
    image = add_shown_image(database, store, keys.both, 0)
    with database.begin() as session:
        session.execute(sa.update(Image).where(Image.id == image.id).values(rendition_version=RENDITION_VERSION))
        model = session.scalars(sa.select(Model)).one()
        model.name, model.card = "veteran", model.card | {"warnings": [DEMO]}
        registry.promote(session, model.id)
    return image


def add_newcomer(database: Database) -> UUID:
    with database.begin() as session:
        model = add_model(session, "newcomer")
        model.card = {"categories": [category.model_dump() for category in CATEGORIES], "warnings": [OTHER]}
        return model.id


def add_result(database: Database, image: Image, model_id: UUID) -> None:
    """Have a model find one opacity on the image."""
    with database.begin() as session:
        end(session, add_job(session, session.get_one(Image, image.id)), model_id)


def end(session: Session, job: Job, model_id: UUID) -> None:
    """Have a job succeed with one opacity."""
    job.state, job.model_id, job.finished_at = JobState.SUCCEEDED, model_id, sa.func.now()
    box = {"x_min_px": 60, "y_min_px": 60, "x_max_px": 120, "y_max_px": 110}
    found = {"class_id": 7, "class_name": "Opacity", "score": 0.7}
    session.add(Detection(job_id=job.id, rank=0, model_id=model_id, **found, **box))


def test_the_worklist_names_the_models_that_are_not_active(page: Page, stored: Image, database: Database) -> None:
    page.goto("/console/studies")
    warnings = page.get_by_role("region", name="Warnings about models")
    expect(warnings).to_contain_text(f"veteran {digest('model of image 0')} warns: {DEMO}")
    row = page.locator(f"#study-{stored.study_id}")
    expect(row).to_contain_text("Mass 0.90")
    expect(row).not_to_contain_text("veteran")

    # A candidate's result comes while the page is open: beside the active model's, and with its own warning.
    newcomer = add_newcomer(database)
    add_result(database, stored, newcomer)
    other = row.locator(".other-model")
    expect(other).to_contain_text("newcomer")
    expect(other).to_contain_text("candidate")
    expect(other).to_contain_text("Opacity 0.70")
    expect(row).to_contain_text("Mass 0.90")
    expect(warnings).to_contain_text(OTHER)

    with database.begin() as session:
        session.execute(sa.delete(Detection).where(Detection.model_id == newcomer))
        session.execute(sa.delete(Job).where(Job.model_id == newcomer))
        registry.promote(session, newcomer)
    expect(row).to_contain_text("No result from the active model newcomer")
    expect(row.locator(".other-model", has_text="veteran")).to_contain_text("retired")


def test_the_viewer_says_whose_findings_these_are_and_asks_the_active_model(
    page: Page, stored: Image, database: Database
) -> None:
    page.goto(f"/console/studies/{stored.study_id}")
    wait_until_shown(page, stored.study_id)
    note = page.get_by_role("region", name="About these findings")
    expect(note).to_contain_text("veteran warns:")
    expect(note).to_contain_text(DEMO)
    expect(note).not_to_contain_text("Not the active model's findings")

    newcomer = add_newcomer(database)
    with database.begin() as session:
        registry.promote(session, newcomer)
    page.reload()
    wait_until_shown(page, stored.study_id)
    expect(note).to_contain_text("Not the active model's findings.")
    expect(note).to_contain_text("a retired model. The active model, newcomer")
    expect(note).to_contain_text("has no result for this image")
    expect(page.locator(".pane .caption").first).to_contain_text("veteran")
    expect(page.locator(".pane .caption").first).to_contain_text("retired model")
    page.get_by_role("button", name="Run newcomer on this study").click()
    expect(page.get_by_role("status").filter(has_text="Waiting for detection")).to_be_visible()
    expect(page.get_by_role("button", name="Run newcomer on this study")).to_have_count(0)
    with database.begin() as session:
        (job,) = session.scalars(sa.select(Job).where(Job.requested_model_id == newcomer))
        assert (job.state, job.image_id) == (JobState.READY, stored.id)
        end(session, job, newcomer)

    # The page learns of it by itself.
    expect(note).to_contain_text("newcomer warns:")
    expect(note).not_to_contain_text("Not the active model's findings")
    first = page.get_by_label("Findings of")
    expect(first.locator("option").first).to_contain_text("newcomer")
    expect(first.locator("option").first).to_contain_text("(active)")
    first.select_option(index=1)
    expect(note).to_contain_text("Not the active model's findings.")
    expect(note).to_contain_text("choose it under “Findings of”")
    page.get_by_label("Compare with").select_option(index=1)
    expect(note).to_contain_text(DEMO)
    expect(note).to_contain_text(OTHER)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]
