"""How findings look on the image by where they stand, and what is asked before drawn boxes are discarded."""

from uuid import UUID

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from api.client import Carina
from shared.imaging.overlay import PALETTE
from shared.tables import Image
from shared.vocabulary.review_actions import ReviewAction
from tests.integration.console.test_viewer import wait_until_shown


def draw(reader: Carina, image_id: UUID) -> None:
    box = (90.0, 90.0, 130.0, 130.0)
    reader.add_to_review(reader.review(image_id), ReviewAction.DRAW, class_id=30, box_xyxy_px=box)


def test_boxes_differ_by_where_they_stand_and_not_by_colour_alone(page: Page, image: Image, reader: Carina) -> None:
    reader.add_to_review(reader.review(image.id), ReviewAction.REJECT, "model-0")
    draw(reader, image.id)
    page.goto(f"/console/studies/{image.study_id}")
    wait_until_shown(page, image.study_id)
    looks = {}
    for verdict, mark in (("accepted", "✓"), ("undecided", "?"), ("rejected", "✕")):
        line = page.locator(f".pane .overlay .box.{verdict} .line").first
        looks[verdict] = line.evaluate("line => getComputedStyle(line).strokeDasharray")
        expect(page.locator(f".pane .overlay g.{verdict} text").first).to_contain_text(mark)
        example = page.get_by_role("list", name="Lines of the boxes").locator("li", has_text=mark)
        drawn = example.locator(".line").evaluate("line => getComputedStyle(line).strokeDasharray")
        assert drawn == looks[verdict]
    assert len(set(looks.values())) == 3, looks
    faded = page.locator(".pane .overlay g.box, .pane .overlay g text").evaluate_all(
        "all => all.filter((one) => getComputedStyle(one).opacity !== '1').length"
    )
    assert faded == 0
    found = Axe().run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []


def test_the_labels_of_every_colour_can_be_read(page: Page, image: Image) -> None:
    page.goto(f"/console/studies/{image.study_id}")
    wait_until_shown(page, image.study_id)
    ratios = page.evaluate(
        """async (palette) => {
            const viewer = document.querySelector('script[src*="viewer/main.js"]').src;
            const { isBright } = await import(viewer.replace("main.js", "overlay.js"));
            const root = document.querySelector(".pane .overlay");
            const text = root.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "text"));
            const light = (colour) => {
                const parts = colour.match(/\\d+/g).slice(0, 3).map((part) => part / 255)
                    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
                return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
            };
            return palette.map((plate) => {
                text.setAttribute("class", isBright(plate) ? "dark" : "light");
                const ink = light(getComputedStyle(text).fill);
                text.style.color = plate;
                const ground = light(getComputedStyle(text).color);
                return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
            });
        }""",
        [*PALETTE, "#FFFFFF"],
    )
    assert min(ratios) >= 4.5, ratios


@pytest.mark.parametrize("by_key", [True, False])
def test_no_finding_asks_before_it_discards_what_was_drawn(
    page: Page, image: Image, reader: Carina, by_key: bool
) -> None:
    draw(reader, image.id)
    reader.add_to_review(reader.review(image.id), ReviewAction.ACCEPT, "model-0")
    page.goto(f"/console/studies/{image.study_id}")
    wait_until_shown(page, image.study_id)

    def say_it() -> None:
        if by_key:
            page.keyboard.press("n")
        else:
            page.get_by_role("button", name="No finding").click()

    say_it()
    question = page.get_by_role("dialog", name="Set “no finding” for this image?")
    expect(question).to_contain_text("1 drawn box and 1 accepted finding")
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_have_count(0)
    assert reader.review(image.id).last_event == 2
    say_it()
    question.get_by_role("button", name="No finding").click()
    page.get_by_text("Review complete: 0 findings.").wait_for()
    assert reader.review(image.id).is_complete


def test_no_finding_does_not_ask_where_nothing_is_lost(page: Page, image: Image, reader: Carina) -> None:
    page.goto(f"/console/studies/{image.study_id}")
    wait_until_shown(page, image.study_id)
    page.keyboard.press("n")
    page.get_by_text("Review complete: 0 findings.").wait_for()
    assert reader.review(image.id).is_complete
