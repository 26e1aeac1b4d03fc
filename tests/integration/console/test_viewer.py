"""The viewer's page, what it is made from, and how it behaves in a browser."""

import hashlib
import json
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from api.console import viewer_data
from shared.access.keys import verify_key
from shared.database import Database
from shared.imaging.overlay import assign_colours
from shared.object_store import ObjectStore, rendition_key
from shared.settings import Settings
from shared.tables import Image
from shared.vocabulary.states import JobState
from tests.integration.conftest import Api, Keys, Server, png
from tests.integration.console.test_sign_in import sign_in
from tests.integration.rows import add_image, add_job, add_result

SIDE_PX = 80


@pytest.fixture
def browser(make_api: Callable[[Settings], Api], settings: Settings) -> FlaskClient:
    """A browser that keeps cookies."""
    return make_api(settings.model_copy(update={"session_secret": SecretStr("s" * 32)}))._http


def add_shown_image(database: Database, store: ObjectStore, key: str, seed: int) -> Image:
    """Add a study with one image of 160 pixels, whose rendition has 80, and what a model found on it."""
    picture = png(seed, SIDE_PX)
    sha256 = hashlib.sha256(picture).hexdigest()
    store.put(rendition_key(sha256), picture)
    columns = {"rendition_sha256": sha256, "rendition_version": 1, "rendition_height_px": SIDE_PX}
    columns |= {"rendition_width_px": SIDE_PX, "flags": ["suspected_inversion"]}
    columns |= {"row_spacing_mm": 2.0, "column_spacing_mm": 1.0, "spacing_source": "detector"}
    with database.begin() as session:
        project_id = verify_key(session, key).project_id
        image = add_image(session, project_id, height_px=2 * SIDE_PX, width_px=2 * SIDE_PX, **columns)
        add_result(session, image, f"model of image {seed}")
        session.expunge(image)
    return image


def data_of(page: str) -> dict:
    """What the server left in the page for its script."""
    return json.loads(page.split('<script type="application/json" id="study">')[1].split("</script>")[0])


def test_the_page_says_all_of_a_study_and_which_ones_lie_beside_it(
    browser: FlaskClient, keys: Keys, database: Database, store: ObjectStore
) -> None:
    oldest, middle, newest = (add_shown_image(database, store, keys.both, seed) for seed in range(3))
    add_shown_image(database, store, keys.stranger, 3)
    sign_in(browser, keys.read)
    study = data_of(browser.get(f"/console/studies/{middle.study_id}").text)
    assert (study["newer"], study["older"]) == (str(newest.study_id), str(oldest.study_id))
    (image,) = study["images"]
    assert image["review"]["findings"][0]["box_xyxy_mm"] == [5, 12, 25, 72]
    assert image["results"][0]["job_id"] == image["review"]["job_id"]
    assert [one["name"] for one in image["results"][0]["classes"]] == ["Mass", "Opacity", "Fibrosis"]
    assert image["flags"] == ["suspected_inversion"]
    assert image["colours"]["Mass"] == assign_colours(["Mass"])["Mass"]  # as on the overlay
    ends = [data_of(browser.get(f"/console/studies/{end.study_id}").text) for end in (newest, oldest)]
    assert (ends[0]["newer"], ends[1]["older"]) == (None, None)


def test_each_image_of_a_study_has_its_own_results_and_of_many_the_newest_are_shown(
    api: Api, browser: FlaskClient, keys: Keys, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.begin() as session:
        first, second, third = images = [
            add_image(session, verify_key(session, keys.both).project_id) for _ in range(3)
        ]
        second.study_id = third.study_id = first.study_id
        job_ids = [add_result(session, image, f"model {n}").id for n, image in enumerate([second, second, third])]
        session.flush()
        session.expunge_all()
    study, reviewed = f"/console/studies/{first.study_id}", job_ids[0]
    # Of two results that which a reader looked at.
    said = {"job_id": str(reviewed), "after": 0, "event": {"action": "accept", "finding_id": "model-0"}}
    assert api.as_(keys.both).post(f"/v1/images/{second.id}/reviews", said).status_code == 201
    sign_in(browser, keys.read)
    shown = data_of(browser.get(study).text)
    assert [image["id"] for image in shown["images"]] == [str(image.id) for image in images]
    none, two, one = shown["images"]
    assert (none["review"], none["results"], none["standing_job"]) == (None, [], None)
    assert [result["model"]["name"] for result in two["results"]] == ["model 1", "model 0"]
    assert (two["review"]["job_id"], two["review"]["last_event"]) == (str(reviewed), 1)
    assert (one["review"]["job_id"], one["review"]["last_event"]) == (str(job_ids[2]), 0)
    assert (len(two["review"]["findings"]), len(one["review"]["findings"])) == (3, 3)
    monkeypatch.setattr(viewer_data, "MAX_IMAGES", 2)
    shown = data_of(browser.get(study).text)
    assert shown["image_count"] == 3
    assert [image["id"] for image in shown["images"]] == [str(second.id), str(third.id)]


def test_an_image_without_a_result_says_why(browser: FlaskClient, keys: Keys, database: Database) -> None:
    with database.begin() as session:
        image = add_image(session, verify_key(session, keys.both).project_id)
        said = {"code": "undecodable_pixel_data", "reason": "The pixel data cannot be <decoded>."}
        add_job(session, image, state=JobState.REJECTED, **said)
        study_id = image.study_id
    sign_in(browser, keys.read)
    page = browser.get(f"/console/studies/{study_id}").text
    assert "cannot be <decoded>" not in page
    (shown,) = data_of(page)["images"]
    assert (shown["has_rendition"], shown["review"], shown["results"]) == (False, None, [])
    assert shown["standing_job"]["code"] == "undecodable_pixel_data"


def test_a_study_of_another_project_is_not_there(
    browser: FlaskClient, keys: Keys, database: Database, store: ObjectStore
) -> None:
    theirs = add_shown_image(database, store, keys.stranger, 0).study_id
    sign_in(browser, keys.admin)
    nobodys = uuid4()
    pages = [browser.get(f"/console/studies/{study_id}") for study_id in (theirs, nobodys)]
    assert [page.status_code for page in pages] == [404, 404]
    assert pages[0].text.replace(str(theirs), str(nobodys)) == pages[1].text


def test_a_rendition_is_kept_by_no_browser_and_each_look_is_recorded(
    api: Api, keys: Keys, database: Database, store: ObjectStore
) -> None:
    image = add_shown_image(database, store, keys.both, 0)
    path = f"/v1/images/{image.id}/rendition.png"
    first = api.get(path)
    assert first.headers["Cache-Control"] == "no-store"
    again = {"Authorization": f"Bearer {keys.both}", "If-None-Match": first.headers["ETag"]}
    assert api._http.get(path, headers=again).status_code == 304
    assert api._http.get(path, headers=again | {"If-None-Match": '"other"'}).status_code == 200
    looks = api.as_(keys.admin).get("/v1/audit-events", action="images.rendition").get_json()["events"]
    assert [look["status"] for look in looks] == [200, 304, 200]


def wait_until_shown(page: Page, study_id: UUID) -> None:
    page.locator(f'body[data-shown="{study_id}"]').wait_for()


def test_a_reader_corrects_a_box_and_turns_to_the_next_study(
    page: Page, api: Api, keys: Keys, database: Database, store: ObjectStore
) -> None:
    older = add_shown_image(database, store, keys.both, 0)
    with database.begin() as session:
        unfit = add_image(session, older.project_id)
        add_job(session, unfit, state=JobState.REJECTED, code="multi_frame", reason="It has two frames.")
    newer = add_shown_image(database, store, keys.both, 1)
    page.goto(f"/console/studies/{newer.study_id}?from=state%3Dsucceeded")
    wait_until_shown(page, newer.study_id)
    findings = page.get_by_role("list", name="Findings").get_by_role("button")
    expect(findings).to_have_count(2)
    for finding, label in zip(findings.all(), ("score 0.90, 20 × 60 mm", "score 0.50, 21 × 60 mm"), strict=True):
        expect(finding).to_have_attribute("aria-label", f"Mass, {label}, not decided")
    expect(page.get_by_text("Suspected inversion")).to_be_visible()
    expect(page.get_by_text("model of image 1").first).to_be_visible()

    # The image fills the pane's height: of 160 pixels of the original each is so many of the screen.
    pane = page.get_by_role("application", name="Image", exact=True).bounding_box()
    scale = pane["height"] / (2 * SIDE_PX)
    corner = (pane["x"] + pane["width"] / 2 - SIDE_PX * scale, pane["y"])
    page.mouse.click(corner[0] + 24.5 * scale, corner[1] + 20 * scale)  # in both boxes: the smaller one is meant
    expect(findings.first).to_have_attribute("aria-current", "true")
    page.keyboard.press("e")
    page.mouse.move(corner[0] + 25 * scale, corner[1] + 36 * scale)
    page.mouse.down()
    page.mouse.move(corner[0] + 45 * scale, corner[1] + 66 * scale, steps=3)
    page.mouse.up()
    page.get_by_role("button", name="Mass, score 0.90, 40 × 120 mm, accepted, changed").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.get_by_role("button", name="Mass, score 0.50, 21 × 60 mm, rejected").wait_for()
    page.keyboard.press("y")
    page.get_by_text("Review complete: 1 finding.").wait_for()
    review = api.get(f"/v1/images/{newer.id}/reviews").get_json()
    assert (review["is_complete"], review["complete_from_score"]) == (True, 0.3)
    box = review["findings"][0]["box_xyxy_px"]
    assert box == pytest.approx([5, 6, 45, 66], abs=1)

    page.keyboard.press("]")
    wait_until_shown(page, older.study_id)
    page.wait_for_url(f"**/{older.study_id}?from=state%3Dsucceeded")
    page.keyboard.press("[")
    wait_until_shown(page, newer.study_id)
    page.go_back()
    wait_until_shown(page, older.study_id)
    page.go_back()
    wait_until_shown(page, newer.study_id)
    page.get_by_text("Review complete: 1 finding.").wait_for()


def test_a_image_that_was_fitted_stays_so_when_its_pane_changes(
    page: Page, keys: Keys, database: Database, store: ObjectStore
) -> None:
    image, other = (add_shown_image(database, store, keys.both, seed) for seed in range(2))
    with database.begin() as session:
        # With a second image there is a strip of both below the pane, once these are known.
        session.execute(sa.update(Image).where(Image.id == other.id).values(study_id=image.study_id))
    pane = page.get_by_role("application", name="Image", exact=True)
    line = pane.locator("rect.line").first
    # Of the image's 160 pixels the box has 30.
    fits = """([pane, line]) =>
        Math.abs(Number(line.getAttribute("height")) - pane.clientHeight * 30 / 160) < 2"""

    def wait_for_fit() -> None:
        page.wait_for_function(fits, arg=[pane.element_handle(), line.element_handle()])

    page.goto(f"/console/studies/{image.study_id}")
    wait_until_shown(page, image.study_id)
    page.get_by_role("group", name="Images of this study").wait_for()
    before = pane.bounding_box()["height"]
    wait_for_fit()
    page.set_viewport_size({"width": 1440, "height": 600})
    smaller = pane.bounding_box()["height"]
    assert smaller < before - 100
    wait_for_fit()
    page.locator("#readout", has_text=f"{int(100 * smaller / SIDE_PX + 0.5)} %").wait_for()
    # What somebody has zoomed in on stays as large.
    fitted = line.get_attribute("height")
    page.keyboard.press("+")
    page.wait_for_function(
        "([line, height]) => line.getAttribute('height') !== height", arg=[line.element_handle(), fitted]
    )
    larger = line.get_attribute("height")
    page.set_viewport_size({"width": 1440, "height": 900})
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert pane.bounding_box()["height"] == before
    assert line.get_attribute("height") == larger


def test_an_admin_erases_a_study_after_being_asked(
    server: Server,
    open_console: Callable[[str, str], Page],
    keys: Keys,
    api: Api,
    database: Database,
    store: ObjectStore,
) -> None:
    image, other = (add_shown_image(database, store, keys.both, seed) for seed in range(2))
    study, button = f"/console/studies/{image.study_id}?from=state%3Dsucceeded", "Erase this study…"
    reader = open_console(server.url, keys.both)
    reader.goto(study)
    wait_until_shown(reader, image.study_id)
    expect(reader.get_by_role("button", name=button)).to_have_count(0)
    reader.close()

    page = open_console(server.url, keys.admin)
    page.goto(study)
    wait_until_shown(page, image.study_id)
    page.get_by_role("button", name=button).click()
    question = page.get_by_role("dialog", name="Erase this study for good?")
    expect(question).to_contain_text("Its image, the original files, all findings and all reviews are removed.")
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_have_count(0)
    assert api.get(f"/v1/studies/{image.study_id}").status_code == 200

    page.get_by_role("button", name=button).click()
    question.get_by_role("button", name="Erase the study").click()
    page.wait_for_url("**/console/studies?state=succeeded")
    page.locator(f"a[href*='{other.study_id}']").first.wait_for()
    expect(page.locator(f"a[href*='{image.study_id}']")).to_have_count(0)
    assert api.get(f"/v1/studies/{image.study_id}").status_code == 404
    assert api.get(f"/v1/studies/{other.study_id}").status_code == 200
