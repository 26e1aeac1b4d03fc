"""Whether the list of studies opens at once with a million of them, whatever is asked for."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from api.app import create_app
from api.contract.study_list import StudiesQuery
from api.http.services import NAME
from api.studies.search import find, find_neighbours
from shared.access.keys import create_key
from shared.database import Database
from shared.ids import new_id
from shared.tables import Image, Project, Study, Submission
from shared.vocabulary.flags import Flag
from shared.vocabulary.states import JobState, Scope
from tests.bench.figure import Figure
from tests.bench.queue_rows import add_demo_model
from tests.bench.servers import servers
from tests.bench.study_rows import CLASSES, RARE, add_studies

STUDIES = 1_000_000
LOOKS = 20
TARGET_MS = 200
#: Many studies meet either condition and none meets both, so that all that one of them has are looked at: no target.
UNUSUAL = "by finding, but without a result"

Query = dict[str, Any]
Asked = TypeVar("Asked")


def measure() -> Iterator[Figure]:
    """Pages of `GET /v1/studies`, from the request to its last byte, and the viewer's next and previous study.

    The first look at each comes before the others.
    """
    with servers() as settings:
        database = Database.from_settings(settings)
        add_demo_model(settings, database)
        with database.begin() as session:
            key = create_key(session, project_name="bench", name="bench", scopes=[Scope.READ])
            project_id = session.scalars(sa.select(Project.id)).one()
            session.add(submission := Submission(id=new_id(), project_id=project_id))
            submission_id = submission.id
        begun = time.monotonic()
        add_studies(database, STUDIES, project_id=project_id, submission_id=submission_id)
        yield Figure("adding the rows", time.monotonic() - begun, "s")
        with database.begin() as session:
            searches = _searches(session, submission_id)
        app = create_app(settings)
        with app.test_client() as http:
            http.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
            for what, queries in searches.items():
                yield from _look(http, what, queries)
        for what, queries in searches.items():
            yield from _turn(database, project_id, what, queries)
        app.extensions[NAME].close()
        database.close()


def _searches(session: Session, submission_id: UUID) -> dict[str, list[Query]]:
    """What is asked, by its kind."""
    # An old study, deep in the list.
    old = session.scalars(sa.select(Study).order_by(Study.id).offset(STUDIES // 10).limit(1)).one()
    image = session.scalars(sa.select(Image).where(Image.study_id == old.id)).one()
    findings = [{"finding": name, "min_score": score} for name in (*CLASSES, RARE) for score in (0.0, 0.3, 0.9, 0.99)]
    by_probability = {"order": "abnormality"}
    long_ago = {"until": old.created_at.date()}
    return {
        "the first page": [{}],
        "a page deep in the list": [{"before": old.id}, {"after": old.id}],
        "by state": [{"state": state} for state in (*JobState, "open")],
        "by priority": [{"priority": priority} for priority in range(10)],
        "by flag": [{"flag": flag} for flag in Flag],
        "by finding and score": findings,
        "by time": [{"since": old.created_at.date()}, long_ago],
        "by an id, a UID or a digest": [
            {"q": text} for text in (old.id, image.id, submission_id, old.study_instance_uid, image.sha256[:8])
        ],
        "by state and priority": [{"state": state, "priority": 9} for state in JobState],
        "by state and flag": [
            {"state": state, "flag": flag} for state in ("succeeded", "rejected", "failed") for flag in Flag
        ],
        "by finding and state": [{"finding": name, "state": "succeeded"} for name in CLASSES],
        "by finding and flag": [{"finding": name, "flag": flag} for name in (CLASSES[0], CLASSES[-1]) for flag in Flag],
        "by finding and priority": [{"finding": name, "priority": 9} for name in CLASSES],
        "by finding and time": [{"finding": name, **long_ago} for name in (*CLASSES, RARE)],
        "by submission and state": [{"q": submission_id, "state": state} for state in JobState],
        "by probability": [{"min_abnormality": least} for least in (0.0, 0.3, 0.7, 0.99, 1.0)],
        "by probability and others": [
            {"min_abnormality": 0.5, **other}
            for other in (
                {"flag": "low_resolution"},
                {"priority": 9},
                {"finding": RARE},
                {"finding": CLASSES[0]},
                long_ago,
            )
        ],
        "in order of probability": [
            {**by_probability, **narrowed}
            for narrowed in ({}, {"min_abnormality": 0.9}, {"before": f"0.125_{old.id}"}, {"after": f"0.125_{old.id}"})
        ],
        "in order of probability, by others": [
            {**by_probability, **other}
            for other in (
                *({"state": state} for state in ("succeeded", "failed", "rejected", "open")),
                *({"priority": priority} for priority in (3, 5, 9)),
                *({"flag": flag} for flag in Flag),
                *({"finding": name} for name in (*CLASSES, RARE)),
                *({"q": old.id}, {"q": submission_id}, {"since": old.created_at.date()}, long_ago),
            )
        ],
        UNUSUAL: [{"finding": CLASSES[0], "state": state} for state in ("queued", "rejected")],
    }


def _look(http: FlaskClient, what: str, queries: list[Query]) -> Iterator[Figure]:
    def ask(query: Query) -> None:
        answer = http.get("/v1/studies", query_string=query)
        if answer.status_code != 200:
            raise RuntimeError(f"{query}: {answer.get_json()}")

    yield from _time(what, queries, ask)


def _turn(database: Database, project_id: UUID, what: str, queries: list[Query]) -> Iterator[Figure]:
    """From a study in the midst of each query's first page."""
    searches = [
        StudiesQuery.model_validate_strings({name: str(value) for name, value in query.items()}) for query in queries
    ]
    with database.begin() as session:
        pages = [find(session, project_id, search).study_ids for search in searches]
    places = [page[len(page) // 2] if page else new_id() for page in pages]

    def turn(place: tuple[StudiesQuery, UUID]) -> None:
        with database.begin() as session:
            find_neighbours(session, project_id, *place)

    yield from _time(f"the studies beside one, {what}", list(zip(searches, places, strict=True)), turn)


def _time(what: str, asked: Sequence[Asked], ask: Callable[[Asked], None]) -> Iterator[Figure]:
    """Ask each several times, in turns."""
    took_ms = []
    for look in range(1 + max(3, LOOKS // len(asked))):
        for each in asked:
            begun = time.perf_counter()
            ask(each)
            if look:  # what comes from disk is another matter
                took_ms.append(1000 * (time.perf_counter() - begun))
    target = None if what.endswith(UNUSUAL) else TARGET_MS
    yield Figure(f"{what}, median", statistics.median(took_ms), "ms", target, "below")
    yield Figure(f"{what}, p95", statistics.quantiles(took_ms, n=20)[-1], "ms", target, "below")
