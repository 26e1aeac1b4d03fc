"""The console in a browser, on the running stack: from images that are dropped to a model that learnt from them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from shared.object_store import ObjectStore
from shared.phantoms import encode_dicom, make_phantom
from tests.e2e.conftest import Stack
from tests.tiny_dataset import store_dataset

#: A training of seconds.
CONFIG = '{"architecture": "carina_small", "canvas_px": 128, "loader_workers": 0}'


@pytest.fixture
def page(stack: Stack, open_console: Callable[[str, str], Page]) -> Page:
    """A page of somebody who is signed in."""
    return open_console(stack.client.api_url, stack.api_key)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Images with lesions that the shipped model finds."""
    paths = []
    for seed in range(1, 20):
        phantom = make_phantom(seed, 700, 600)
        if phantom.lesions:
            paths.append(tmp_path / f"image-{len(paths)}.dcm")
            paths[-1].write_bytes(encode_dicom(phantom, transfer_syntax="jpeg-ls"))
        if len(paths) == 3:
            return paths
    raise AssertionError("no lesions")


def drop(page: Page, *files: Path) -> None:
    """Drop files on the page as a hand would."""
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 700, "y": 500, "data": data})


def is_accessible(page: Page) -> None:
    """Have axe-core look at the page; nothing that it finds may be serious."""
    found = Axe().run(page).response["violations"]
    serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
    assert serious == [], page.url


def test_images_become_findings_corrections_and_a_better_model(stack: Stack, page: Page, images: list[Path]) -> None:
    store_dataset(stack.database, ObjectStore(stack.settings), count=12)

    # Upload.
    is_accessible(page)
    drop(page, *images)
    upload = page.get_by_role("region", name="Upload")
    upload.get_by_text("3 accepted").wait_for()
    page.get_by_role("row").filter(has_text="Finished").nth(2).wait_for()
    is_accessible(page)
    page.get_by_label("State").select_option("succeeded")
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url("**state=succeeded**")
    page.get_by_role("row").nth(1).get_by_role("cell").nth(1).click()  # anywhere in the row

    # Read, window, filter.
    page.locator("body[data-shown]").wait_for()
    image = page.get_by_role("application", name="Image", exact=True)
    box = image.bounding_box()
    assert box is not None
    window = page.get_by_text(re.compile(r"W \d+ L \d+"))
    before = window.inner_text()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 260, box["y"] + 140, steps=4)
    page.mouse.up()
    expect(window).not_to_have_text(before)
    dragged = window.inner_text()
    page.get_by_role("button", name="Window for the darker parts, as the lungs").click()
    expect(window).not_to_have_text(dragged)
    page.get_by_role("button", name="Reset").click()
    image.press("m")
    image.press("Enter")
    announcer, lengths_mm = page.locator("#announcer"), []
    for _ in "ab":
        said = announcer.inner_text()
        image.press("ArrowRight")
        expect(announcer).not_to_have_text(said)
        expect(announcer).to_have_text(re.compile(r"^[\d.]+ mm$"))
        lengths_mm.append(float(announcer.inner_text().removesuffix(" mm")))
    assert lengths_mm[0] < lengths_mm[1]
    page.get_by_text(re.compile(f"^{lengths_mm[1]} mm$")).first.wait_for()
    image.press("Escape")
    page.locator(".measure").first.wait_for(state="hidden")
    image.press("w")
    least = page.get_by_label("Minimum score")
    least.press("ArrowRight")  # the slider's, not the image's
    expect(least).to_have_value("0.31")
    findings = page.get_by_role("list", name="Findings").get_by_role("button")
    expect(findings).not_to_have_count(0)
    shown = findings.count()
    page.get_by_role("button", name="None", exact=True).click()
    expect(findings).to_have_count(0)
    page.get_by_role("button", name="All", exact=True).click()
    expect(findings).to_have_count(shown)
    is_accessible(page)

    # Correct a box by keyboard, decide the others, be done; then the next images.
    for number in range(len(images)):
        findings.first.click()
        if number == 0:
            page.keyboard.press("e")
            page.keyboard.press("Shift+ArrowRight")
            page.keyboard.press("Enter")
            page.get_by_role("button", name=re.compile("accepted, changed")).wait_for()
            page.keyboard.press("Escape")
        for finding in findings.all():
            if "not decided" in (finding.get_attribute("aria-label") or ""):
                finding.click()
                page.keyboard.press("a")
                expect(finding).not_to_have_attribute("aria-label", re.compile("not decided"))
        page.get_by_role("button", name="Review done").click()
        page.get_by_text(re.compile("^Review complete:")).wait_for()
        if number < len(images) - 1:
            here = page.locator("body").get_attribute("data-shown")
            page.keyboard.press("]")
            page.locator(f'body[data-shown]:not([data-shown="{here}"])').wait_for()

    # Export what they said, and take part of it for a training.
    page.get_by_role("button", name="Training data from reviews…").click()
    page.get_by_role("button", name="Make the dataset").click()
    page.get_by_role("link", name="COCO JSON").wait_for()
    page.get_by_role("button", name="Close").click()

    # The worklist knows what has been read.
    page.get_by_role("link", name="Studies", exact=True).click()
    page.get_by_role("row").filter(has_text="reviewed").nth(len(images) - 1).wait_for()

    # Train on phantoms, and see the curves move.
    page.get_by_role("link", name="Training", exact=True).click()
    is_accessible(page)
    page.get_by_role("button", name="Start a training").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Dataset", exact=True).select_option(label="phantoms, 12 images")
    expect(dialog.get_by_label("Dataset", exact=True)).to_contain_text("reviews")
    dialog.get_by_label("Start from").select_option("none")
    dialog.get_by_label("Epochs").fill("2")
    dialog.get_by_label("Batch size").fill("3")
    dialog.get_by_text("More settings").click()
    dialog.get_by_label("Settings to change, as JSON").fill(CONFIG)
    is_accessible(page)
    dialog.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/console/training/*")
    page.locator(".charts canvas").first.wait_for()
    page.locator("#state").filter(has_text="succeeded").wait_for()
    is_accessible(page)
    page.get_by_role("link", name="Training", exact=True).click()
    page.get_by_role("row").filter(has_text="succeeded").wait_for()
    theirs = stack.client.train("phantoms", config={"initial_weights": "none"}, name="by a colleague")
    page.get_by_role("row").filter(has_text="by a colleague").wait_for()
    stack.client.cancel_training(theirs.id)

    # Promote what came of it.
    page.get_by_role("link", name="Models", exact=True).click()
    is_accessible(page)
    page.get_by_role("button", name="Promote").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    page.get_by_text("is active now.").wait_for()
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    page.get_by_text("is active again.").wait_for()

    # And the other pages.
    for name in ("Queue", "Schedules"):
        page.get_by_role("link", name=name, exact=True).click()
        page.get_by_role("heading", name=name, exact=True).wait_for()
        is_accessible(page)


def test_a_chart_of_one_sample_shows_it(page: Page) -> None:
    page.goto("/console/queue")
    empty, first, last, points = page.evaluate(
        """async () => {
            const queue = document.querySelector('script[src*="queue.js"]').src;
            const { Chart } = await import(queue.replace("queue.js", "chart.js"));
            const place = document.querySelector("main").appendChild(document.createElement("div"));
            const lines = [{ key: "jobs", label: "jobs", show: String }];
            const chart = new Chart(place, { title: "Jobs", x: { label: "Time", time: true }, lines });
            chart.set({ x: [], jobs: [] });
            const empty = chart.drawing.innerText;
            chart.set({ x: [1e9], jobs: [3] });
            await new Promise(requestAnimationFrame);
            const { scales, series } = chart.plot;
            return [empty, scales.x.min, scales.x.max, series[1].points.show(chart.plot, 1)];
        }"""
    )
    assert (empty, first, last, points) == ("Nothing yet.", 1e9 - 120, 1e9, True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone(stack: Stack, page: Page, scheme: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme=scheme)
    for path in ("studies", "queue", "training", "models", "schedules"):
        page.goto(f"/console/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        is_accessible(page)
