"""The list of studies by the probability of any finding: the order, page by page, and the filter."""

import random
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient

from api.studies import abnormality_order
from shared.database import Database
from shared.tables import Image, Study
from shared.vocabulary.states import JobState, ModelState
from tests.integration.conftest import Api, Keys
from tests.integration.console.test_viewer import data_of
from tests.integration.studies.test_authority import StoredImage, Ward, browser, ward  # noqa: F401 - fixtures

BY_IT = {"order": "abnormality"}
#: Conditions that all studies of `crowd` with a probability meet, and ones that some meet.
CONDITIONS = (
    {},
    {"min_abnormality": 0.3},
    {"priority": 5},
    {"priority": 5, "min_abnormality": 0.3},
    {"flag": "rotated"},
)


@pytest.fixture(params=["sorted", "index"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the few studies that meet a condition and sort them, or test those of the index."""
    is_few = request.param == "sorted"
    monkeypatch.setattr(abnormality_order.AbnormalityOrder, "_are_few", lambda *_: is_few)


@pytest.fixture
def crowd(ward: Ward, database: Database) -> list[StoredImage]:  # noqa: F811
    """Studies in the order of the list: many of equal probability, some without one, one with two images."""
    active, other = ward.model("active", ModelState.ACTIVE), ward.model("other")
    chance = random.Random(5)
    stored = []
    for number in range(15):
        image = ward.add_image(flags=["rotated"] if number % 3 else [])
        abnormality = chance.choice([None, 0.0, 0.1, 0.3, 0.7, 0.7, 1.0])
        if number % 7 == 0:
            ward.job(image, JobState.QUEUED)
            ward.result(image, other, {"Nodule": 0.9}, abnormality=0.99)
            abnormality = None
        else:
            ward.result(image, active, {}, abnormality=abnormality)
            ward.result(image, other, {}, abnormality=0.99)
        stored.append((abnormality, image))
    two = ward.add_image()
    with database.begin() as session:
        first = stored[1][1]
        session.get_one(Image, two.id).study_id = first.study_id
        session.flush()
        session.delete(session.get_one(Study, two.study_id))
    ward.result(StoredImage(two.id, first.study_id), active, {}, abnormality=0.55)
    stored[1] = (max(stored[1][0] or 0, 0.55), first)
    return [
        image for _, image in sorted(stored, key=lambda each: (-1 if each[0] is None else each[0], each[1].study_id))
    ][::-1]


def pages(api: Api, **query: object) -> Iterator[list[dict]]:
    """The pages of a list, from the first to the last."""
    answer = api.get("/v1/studies", **query).get_json()
    while True:
        yield answer["studies"]
        if answer["next"] is None:
            return
        answer = api.get("/v1/studies", **query, before=answer["next"]).get_json()


def ids(api: Api, **query: object) -> list[str]:
    return [study["id"] for page in pages(api, **query) for study in page]


def expected(ward: Ward, crowd: list[StoredImage], **query: object) -> list[str]:  # noqa: F811
    """What the conditions leave of the crowd, by what the list says of each study."""
    lines = {study["id"]: study for study in ward.api.get("/v1/studies").get_json()["studies"]}
    listed = [lines[str(image.study_id)] for image in crowd]
    least, flag = query.get("min_abnormality"), query.get("flag")
    return [
        line["id"]
        for line in listed
        if (least is None or (line["abnormality"] is not None and line["abnormality"] >= 0.2999))
        and (flag is None or flag in line["flags"])
    ]


@pytest.mark.usefixtures("either_way")
def test_pages_hold_each_study_once_in_order(ward: Ward, crowd: list[StoredImage]) -> None:  # noqa: F811
    for limit, condition in ((1, {}), *((3, condition) for condition in CONDITIONS)):
        query = {**BY_IT, **condition, "limit": limit}
        listed = expected(ward, crowd, **condition)
        assert len(listed) > 3
        assert ids(ward.api, **query) == listed, condition
        # And back, from the last page to the first.
        *_, last = pages(ward.api, **query)
        cut = len(listed) - len(last)
        answer = ward.api.get("/v1/studies", **query, before=cursor_of(ward, listed[cut - 1])) if cut else None
        while answer is not None and answer.get_json()["previous"] is not None and cut > 0:
            answer = ward.api.get("/v1/studies", **query, after=answer.get_json()["previous"])
            cut = max(0, cut - limit)
            assert [study["id"] for study in answer.get_json()["studies"]] == listed[cut : cut + limit], condition


def cursor_of(ward: Ward, study_id: str) -> str:  # noqa: F811
    """The place of a study in the order by abnormality."""
    (study,) = ward.api.get("/v1/studies", q=study_id).get_json()["studies"]
    return f"{'none' if study['abnormality'] is None else study['abnormality']}_{study_id}"


@pytest.mark.usefixtures("either_way")
def test_a_reader_turns_from_study_to_study_in_this_order(
    ward: Ward,  # noqa: F811
    crowd: list[StoredImage],
    browser: FlaskClient,  # noqa: F811
) -> None:
    for condition in ({}, {"flag": "rotated", "min_abnormality": 0.3}):
        listed = expected(ward, crowd, **condition)
        around = [None, *listed, None]
        for number, study_id in enumerate(listed):
            query = urlencode({**BY_IT, **condition})
            study = data_of(browser.get(f"/console/studies/{study_id}", query_string={"from": query}).text)
            assert (study["newer"], study["older"]) == (around[number], around[number + 2])


def test_the_filter_keeps_the_other_order_and_compares_what_is_shown(
    ward: Ward,  # noqa: F811
    crowd: list[StoredImage],
) -> None:
    listed = set(expected(ward, crowd, min_abnormality=0.3))
    newest_first = [study_id for study_id in ids(ward.api) if study_id in listed]
    assert 3 < len(newest_first) < len(crowd)
    for limit in (3, 15):
        assert ids(ward.api, min_abnormality=0.3, limit=limit) == newest_first
    for study in ward.api.get("/v1/studies").get_json()["studies"]:
        if (shown := study["abnormality"]) is not None:
            assert study["id"] in ids(ward.api, min_abnormality=shown)
            assert study["id"] not in ids(ward.api, min_abnormality=min(1, shown + 1e-6)) or shown == 1
    assert ids(ward.api, min_abnormality=0.3, state="queued") == []
    assert 0 < len(ids(ward.api, min_abnormality=1e-50)) < len(crowd)
    below = ward.api.get("/v1/studies", **BY_IT, before=f"1e-50_{crowd[0].study_id}").get_json()["studies"]
    assert {study["abnormality"] for study in below} <= {None, 0.0}


def test_only_the_active_models_probability_counts(ward: Ward, crowd: list[StoredImage]) -> None:  # noqa: F811
    ward.promote(after := ward.model("after"))
    assert ids(ward.api, min_abnormality=0) == []
    assert ids(ward.api, **BY_IT, limit=5) == ids(ward.api)
    ward.result(crowd[-1], after, {}, abnormality=0.2)
    assert ids(ward.api, min_abnormality=0) == [str(crowd[-1].study_id)]
    assert ids(ward.api, **BY_IT, limit=5)[0] == str(crowd[-1].study_id)
    ward.roll_back()
    assert ids(ward.api, **BY_IT) == [str(image.study_id) for image in crowd]


def test_another_project_sees_none_of_it(ward: Ward, crowd: list[StoredImage], api: Api, keys: Keys) -> None:  # noqa: F811
    assert len(crowd) == len(ids(ward.api, **BY_IT))
    stranger = api.as_(keys.stranger)
    assert ids(stranger, **BY_IT) == ids(stranger, min_abnormality=0) == []


def test_a_cursor_of_another_order_is_refused(
    ward: Ward,  # noqa: F811
    crowd: list[StoredImage],
    browser: FlaskClient,  # noqa: F811
) -> None:
    id_ = crowd[0].study_id
    for query in (
        {**BY_IT, "before": id_},
        {"before": f"0.5_{id_}"},
        {**BY_IT, "after": "0.5"},
        {**BY_IT, "after": f"x_{id_}"},
        {"min_abnormality": 1.1},
        {"min_abnormality": "nan"},
        {"order": "oldest"},
    ):
        answer = ward.api.get("/v1/studies", **query)
        assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_request"), query
        assert browser.get("/console/studies", query_string=query).status_code == 422, query
