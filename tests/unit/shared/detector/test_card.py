"""A card round-trips, numbers the model's outputs in one place, and needs no torch."""

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from shared.detector.card import Category, ModelCard
from shared.detector.demo import load_demo_model

CATEGORIES = tuple(Category(id=id_, name=name) for id_, name in ((30, "Mass"), (7, "Opacity"), (12, "Fibrosis")))


def make_card(**fields: object) -> ModelCard:
    return ModelCard.model_validate(
        {
            "name": "test",
            "architecture": "carina_small",
            "categories": CATEGORIES,
            "canvas_px": 256,
            "anchor_sizes_px": [[16, 32], [64, 96], [128, 192]],
            "rendition_version": 1,
            "weights_sha256": "ab" * 32,
            **fields,
        }
    )


def test_labels_and_categories_are_inverse_for_ids_with_gaps_in_any_order() -> None:
    card = make_card()
    assert [card.category_of(label).id for label in (1, 2, 3)] == [30, 7, 12]
    assert [card.label_of(category.id) for category in CATEGORIES] == [1, 2, 3]


@pytest.mark.parametrize("label", [0, 4, -1])
def test_background_and_unknown_labels_stand_for_no_category(label: int) -> None:
    with pytest.raises(ValueError, match="is not one of 1 to 3"):
        make_card().category_of(label)


def test_an_unknown_category_has_no_label() -> None:
    with pytest.raises(ValueError, match="no category 8"):
        make_card().label_of(8)


def test_the_digest_survives_json_and_tells_cards_apart() -> None:
    card = make_card(metrics={"map": 0.5, "by_class": {"Mass": None}})
    assert ModelCard.model_validate_json(card.model_dump_json(indent=2)).digest == card.digest
    reordered = card.model_copy(update={"categories": CATEGORIES[::-1]})
    assert len({card.digest, reordered.digest, card.model_copy(update={"nms_iou": 0.4}).digest}) == 3


def test_warnings_travel_with_the_card_and_make_no_other_model() -> None:
    card = make_card()
    warned = card.with_warnings(["Made for a demonstration.", "  It marks the side marker. "])
    assert warned.warnings == ("Made for a demonstration.", "It marks the side marker.")
    assert warned.digest == card.digest
    assert ModelCard.model_validate_json(warned.model_dump_json()) == warned
    assert json.loads(warned.model_dump_json())["warnings"] == list(warned.warnings)


def test_the_demo_model_is_the_one_that_installations_know_by_its_digest() -> None:
    card, _ = load_demo_model()
    assert card.digest == "4b88449242c3e9f5d72e1f767c020a2c4ded4065a1aa04754057d425d559b783"
    assert any("misses most real findings" in warning for warning in card.warnings)


@pytest.mark.parametrize("warnings", [[""], [" "], ["two\nlines"], ["\x1b[31mred"], ["x" * 301], ["again"] * 11])
def test_a_warning_is_a_sentence_on_one_line(warnings: list[str]) -> None:
    with pytest.raises(ValidationError):
        make_card().with_warnings(warnings)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"categories": [{"id": 1, "name": "A"}, {"id": 1, "name": "B"}]}, "same id"),
        ({"categories": [{"id": 1, "name": "A"}, {"id": 2, "name": "A"}]}, "same name"),
        ({"categories": []}, "at least 1"),
        ({"canvas_px": 250}, "multiple of 32"),
        ({"architecture": "yolo"}, "carina_small"),
        ({"image_std": [0.2, 0.0, 0.2]}, "image_std"),
        ({"colour": "blue"}, "Extra inputs"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        make_card(**fields)


def test_cards_and_the_demo_model_are_read_without_torch() -> None:
    code = (
        "import sys; import shared.detector.card; from shared.detector.demo import load_demo_model; load_demo_model();"
        "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
