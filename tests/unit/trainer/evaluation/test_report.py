"""The report is one file that needs nothing else, says every number, and shows boxes where they are."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.detector.card import Category
from tests.unit.trainer.evaluation.random_set import SIDE_PX, draw_set
from trainer.evaluation.boxes import Boxes
from trainer.evaluation.material import EvaluationSet
from trainer.evaluation.paired import paired_gain
from trainer.evaluation.report import PICTURES, Decision, render_report, show
from trainer.evaluation.summary import MissingClass, Summary, summarise

FACTS = {"Model": "a model", "Model digest": "ab" * 32, "Split": "val", "Rendition version": 1}
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Reader(HTMLParser):
    """Reads a page, requires each element to be closed, and keeps what a browser would ask for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def image(image_id: int) -> NDArray[np.uint8]:
    """A rendition at half the original's size."""
    return np.full((SIDE_PX // 2, SIDE_PX // 2), image_id % 256, np.uint8)


@pytest.fixture(scope="module")
def material() -> EvaluationSet:
    return draw_set(60, 30, 14, seed=11)


@pytest.fixture(scope="module")
def summary(material: EvaluationSet) -> Summary:
    return summarise(material, bootstrap_samples=50, seed=0)


@pytest.fixture(scope="module")
def page(material: EvaluationSet, summary: Summary) -> str:
    return render_report(material, summary, image, FACTS)


def test_it_asks_for_nothing_outside(page: str) -> None:
    reader = Reader(page)
    assert not {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in reader.seen}
    for _, attributes in reader.seen:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:image/jpeg;base64,", "#")) or not value
        assert "url(http" not in (attributes.get("style") or "")
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_every_reference_has_its_one_target(page: str) -> None:
    reader = Reader(page)
    ids = [attributes["id"] for _, attributes in reader.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {attributes["aria-labelledby"] for _, attributes in reader.seen if "aria-labelledby" in attributes}
    wanted |= set(re.findall(r'(?:url\(|href=")#([^)"]+)', page))
    assert wanted <= set(ids)
    assert {"froc-caption", "precision-recall-caption", "reliability-caption"} <= wanted


def test_it_says_the_numbers_and_what_they_rest_on(page: str, summary: Summary) -> None:
    text = " ".join(" ".join(Reader(page).text).split())
    assert "Research use only. Not a medical device." in text
    for fact in map(str, FACTS.values()):
        assert fact in text
    for estimate in (summary.map40, summary.coco_ap, summary.coco_ap50, summary.froc_mean, summary.auroc):
        assert f"{show(estimate.value)} 95% interval {show(estimate.low)}–{show(estimate.high)}" in text
    for name, value in summary.coco.items():
        assert re.search(rf"{name} average \w+ \S+ \w+ 1?0?0?1?0? {re.escape(show(value))}", text), name
    for row in summary.categories:
        interval = [] if row.ap40_low is None else [f"{show(row.ap40_low)}–{show(row.ap40_high)}"]
        others = map(show, (row.ap, row.ap50, row.auroc))
        numbers = (row.boxes, row.images, row.detections, show(row.ap40), *interval, *others)
        assert " ".join(map(str, (row.name, *numbers))) in text
    assert f"in no mean: {summary.absent[0]}." in text
    assert show(summary.map40_with_no_finding) in text


def test_tables_and_pictures_can_be_heard(page: str) -> None:
    reader = Reader(page)
    assert all("scope" in attributes for attributes in reader.attributes("th"))
    assert len(reader.attributes("caption")) == len(reader.attributes("table")) == 5
    pictures = [svg for svg in reader.attributes("svg") if svg.get("aria-hidden") != "true"]
    assert len(pictures) == 3 + 2 * PICTURES
    for svg in pictures:
        assert svg["role"] == "img"
        assert svg.get("aria-label") or svg.get("aria-labelledby")


def test_pictures_show_the_image_with_both_boxes_where_they_are() -> None:
    category = Category(id=3, name="Nodule")
    true = Boxes(np.array([3]), np.array([[400.0, 200.0, 800.0, 1000.0]]), np.ones(1))
    found = Boxes(np.array([3]), np.array([[1000.0, 0.0, 2000.0, 500.0]]), np.array([0.75]))
    one = EvaluationSet((7,), ("p",), (category,), {7: true}, {7: found}, {7: (SIDE_PX, SIDE_PX)})
    page = render_report(one, summarise(one, bootstrap_samples=0, seed=0), image, {})
    assert "Nodule, found by no detection." in page
    assert "Nodule, detected with score 0.750, agrees with no true box of its class." in page
    for element in ('class="true subject"', 'class="detected subject"', ">Nodule 0.75</text>", ">Nodule</text>"):
        assert element in page
    scale = 512 / SIDE_PX
    for left, top, width, height in ((400, 200, 400, 800), (1000, 0, 1000, 500)):
        place = [f"{scale * edge:.1f}" for edge in (left, top, width, height)]
        assert 'x="{}" y="{}" width="{}" height="{}"'.format(*place) in page
    uris = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(uris) == 2
    picture = Image.open(io.BytesIO(base64.b64decode(uris[0])))
    assert (picture.size, picture.getpixel((5, 5))) == ((512, 512), 7)


def test_a_decision_comes_with_its_numbers(material: EvaluationSet, summary: Summary) -> None:
    gain = paired_gain(material, material, samples=5, seed=0)
    refused = Decision(promoted=False, reason="It gains nothing & loses time.", gain=gain)
    text = " ".join(" ".join(Reader(render_report(material, summary, image, FACTS, refused)).text).split())
    assert "Decision: not promoted" in text
    assert refused.reason in text
    assert f"Mean {gain.active_map:.3f} {gain.candidate_map:.3f} +0.000 +0.000 to +0.000" in text


def test_names_are_text_and_the_same_set_gives_the_same_page(
    material: EvaluationSet, summary: Summary, page: str
) -> None:
    assert render_report(material, summary, image, FACTS) == page
    nasty = "<script>alert(1)</script> $x$"
    hostile = dataclasses.replace(material, categories=(Category(id=2, name=nasty), *material.categories[1:]))
    hostile_page = render_report(hostile, summarise(hostile, bootstrap_samples=0, seed=0), image, {"Model": nasty})
    assert "<script" not in hostile_page
    Reader(hostile_page)


def test_nothing_to_show_is_said() -> None:
    nothing = EvaluationSet((1, 2), ("a", "b"), (Category(id=1, name="Nodule"),), {}, {}, {1: (9, 9), 2: (9, 9)})
    text = " ".join(
        " ".join(
            Reader(render_report(nothing, summarise(nothing, bootstrap_samples=9, seed=0), image, {})).text
        ).split()
    )
    assert "No image has a true box: there is no curve." in text
    assert "On 2 images without a finding, every detection is a false positive." in text
    assert "There is none: no image has a true box." in text
    assert "not defined on these images" in text


def test_a_class_that_the_model_lacks_is_named(material: EvaluationSet) -> None:
    missing = (
        MissingClass(name="Nodule / Mass", boxes=3, closest="Nodule/Mass"),
        MissingClass(name="Rib fracture", boxes=0, closest=None),
    )
    page = render_report(material, summarise(material, bootstrap_samples=0, seed=0, missing=missing), image, FACTS)
    text = " ".join(" ".join(Reader(page).text).split())
    assert "no class “Nodule / Mass” (3 boxes); its most similar class is “Nodule/Mass”. It is in no mean." in text
    assert "no class “Rib fracture” (0 boxes). It is in no mean." in text
