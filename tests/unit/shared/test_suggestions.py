"""What may have been meant by a name or an id that there is not."""

from uuid import UUID

import pytest

from shared.errors import NotFound
from shared.suggestions import AmbiguousName, UnknownName, did_you_mean, pick, suggest_choice

CLASSES = ["Aortic enlargement", "Cardiomegaly", "Nodule/Mass", "Pleural effusion"]
FIRST, SECOND = UUID("01a208a2-02e6-797b-8890-31f5283ee479"), UUID("01a208a2-02e6-7f7b-8890-31f5283ee479")
KNOWN = {FIRST: "night", SECOND: "day"}


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("Cardiomegally", "Cardiomegaly"),
        ("cardiomegaly", "Cardiomegaly"),
        ("CARDIO", "Cardiomegaly"),
        ("effusion", "Pleural effusion"),
        ("Nodule-Mass", "Nodule/Mass"),
    ],
)
def test_the_nearest_word_is_suggested_whatever_its_case(word: str, meant: str) -> None:
    assert did_you_mean(word, CLASSES) == f" Did you mean {meant}?"


def test_nothing_is_suggested_where_nothing_is_near_but_a_short_list_is_shown() -> None:
    assert did_you_mean("fracture", CLASSES) == ""
    error = UnknownName("class", "fracture", CLASSES)
    assert error.code == "unknown_class"
    assert error.detail == f"There is no class 'fracture'. There are {', '.join(CLASSES)}."
    assert UnknownName("code", "x", map(str, range(1000))).detail == "There is no code 'x'."


def test_a_word_of_a_list_is_suggested_as_pydantic_writes_the_list() -> None:
    assert suggest_choice("faild", "'queued', 'succeeded' or 'failed'") == " Did you mean failed?"
    assert suggest_choice(7, "'queued' or 'failed'") == ""


@pytest.mark.parametrize(
    "name", [str(FIRST), str(FIRST).upper(), FIRST.hex, "01a208a2-02e6-79", "01A208A202E679", "night"]
)
def test_a_thing_is_named_by_its_id_its_beginning_or_its_name(name: str) -> None:
    assert pick("model", name, KNOWN) == FIRST


def test_a_name_is_taken_before_the_beginning_of_an_id() -> None:
    assert pick("model", "01a208", {FIRST: "x", SECOND: "01a208"}) == SECOND


def test_what_several_are_called_is_refused_with_their_ids() -> None:
    for name, known in (("01a208a2-02e6", KNOWN), ("twin", {FIRST: "twin", SECOND: "twin"})):
        with pytest.raises(AmbiguousName) as refused:
            pick("model", name, known)
        assert refused.value.candidates == [FIRST, SECOND]
        assert str(FIRST) in refused.value.detail
        assert str(SECOND) in refused.value.detail


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nihgt", "There is no model 'nihgt'. Did you mean night?"),
        (str(FIRST)[:-1] + "0", f"Did you mean {FIRST}?"),
        ("01a208a2-02e7", "There is no model '01a208a2-02e7'."),
        ("01a2", "There is no model '01a2'."),
        ("", "There is no model ''."),
    ],
)
def test_what_there_is_not_is_refused_with_what_was_meant(name: str, said: str) -> None:
    with pytest.raises(NotFound) as refused:
        pick("model", name, KNOWN)
    assert refused.value.detail.endswith(said)
