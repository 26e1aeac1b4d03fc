"""Daily quotas: every file counts once, whichever way its bytes became rows, and none is lost to a quota."""

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
import sqlalchemy as sa

from shared.access.keys import Allowance, create_key, prefix_of
from shared.access.quotas import QuotaExceeded, find_quota
from shared.database import Database
from shared.erasure import finish_all
from shared.intake.archives import ArchiveKind
from shared.intake.receive import Intake
from shared.object_store import ObjectStore, original_key
from shared.object_store.incoming import Incoming
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import ApiKey, Project, SubmissionFile, Usage
from shared.vocabulary.states import FileState, Scope
from tests.integration.conftest import Api, Keys, png
from tests.integration.http.test_access import problem_of
from tests.integration.submitting import Desk, make_archive


@pytest.fixture
def desk(settings: Settings, database: Database, hints: Hints) -> Desk:
    return Desk(settings, database, hints)


def make_key(database: Database, project: str = "ward", **allowed: int) -> tuple[str, UUID]:
    """A key with these limits, and its id."""
    with database.begin() as session:
        scopes, allowance = [Scope.SUBMIT, Scope.READ], Allowance(**allowed)
        key = create_key(session, project_name=project, name="", scopes=scopes, allowance=allowance)
        return key, session.scalars(sa.select(ApiKey.id).where(ApiKey.prefix == prefix_of(key))).one()


def used(database: Database, key_id: UUID) -> tuple[int, int]:
    with database.begin() as session:
        row = session.scalars(sa.select(Usage).where(Usage.api_key_id == key_id)).one_or_none()
        return (row.files, row.bytes) if row else (0, 0)


def next_day(database: Database) -> None:
    """Let the day be over: what was counted is of yesterday, and what waits may go on."""
    with database.begin() as session:
        session.execute(sa.update(Usage).values(day=Usage.day - 1))
        session.execute(sa.update(SubmissionFile).values(available_at=sa.func.now()))


def test_files_of_an_archive_count_and_wait_for_the_next_day(
    api: Api, keys: Keys, database: Database, desk: Desk
) -> None:
    key, key_id = make_key(database, files_per_day=3)
    mine, images = api.as_(key), [png(number) for number in range(5)]
    archive = make_archive(ArchiveKind.ZIP, *images)
    told = {"name": "a.zip", "byte_count": len(archive), "sha256": hashlib.sha256(archive).hexdigest()}
    path = f"/v1/submissions/{mine.post('/v1/submissions', {'files': [told]}).get_json()['submission']['id']}"
    assert mine.put(f"{path}/files/0/content", archive).status_code == 200
    mine.post(f"{path}/complete")
    desk.receive()
    rows = mine.get(f"{path}/manifest").get_json()["files"]
    assert [row["outcome"] for row in rows] == ["arrived:quota_exceeded", *["accepted"] * 3]
    assert "may in a day, which is 3" in rows[0]["reason"]
    assert mine.get(path).get_json()["codes"] == {"quota_exceeded": 1}
    assert used(database, key_id) == (3, sum(map(len, images[:3])))
    desk.receive()
    assert len(mine.get(f"{path}/manifest").get_json()["files"]) == 4, "it waits"

    next_day(database)
    desk.receive()
    rows = mine.get(f"{path}/manifest").get_json()["files"]
    assert [row["outcome"] for row in rows] == ["unpacked", *["accepted"] * 5]
    assert {row["sha256"] for row in rows[1:]} == {hashlib.sha256(image).hexdigest() for image in images}


def test_files_of_a_bucket_count_and_wait(
    database: Database, settings: Settings, store: ObjectStore, hints: Hints, keys: Keys
) -> None:
    _, key_id = make_key(database, files_per_day=2)
    incoming, desk = Incoming(settings), Desk(settings, database, hints)
    incoming._s3.create_bucket(Bucket="archive-of-images")
    for number in range(4):
        incoming._s3.put_object(Bucket="archive-of-images", Key=f"images/{number}.png", Body=png(number))
    submission_id = desk.import_from("archive-of-images", "images/")
    with database.begin() as session:
        session.execute(sa.text("UPDATE submission SET api_key_id = :key"), {"key": key_id})
    desk.receive()
    assert Counter(file.state for file in desk.files(submission_id)) == {FileState.ACCEPTED: 2, FileState.ARRIVED: 2}
    waiting = [file for file in desk.files(submission_id) if file.state == FileState.ARRIVED]
    assert {(file.code, file.attempt) for file in waiting} == {("quota_exceeded", 0)}
    next_day(database)
    desk.receive()
    assert Counter(file.state for file in desk.files(submission_id)) == {FileState.ACCEPTED: 4}
    incoming.close()


def test_an_uploaded_file_counts_once_and_can_be_sent_the_next_day(api: Api, database: Database) -> None:
    key, key_id = make_key(database, files_per_day=1)
    mine, images = api.as_(key), [png(1), png(2)]
    told = [{"byte_count": len(image), "sha256": hashlib.sha256(image).hexdigest()} for image in images]
    paths = []
    for one in told:  # what is announced is compared with what is left, and counts when it comes
        made = mine.post("/v1/submissions", {"files": [one]}).get_json()
        paths.append(f"/v1/submissions/{made['submission']['id']}/files/0/content")
    for _ in range(2):
        assert mine.put(paths[0], images[0]).status_code == 200
    refused = mine.put(paths[1], images[1])
    assert (refused.status_code, problem_of(refused)) == (429, "quota_exceeded")
    assert 0 < int(refused.headers["Retry-After"]) <= 86_401
    assert used(database, key_id) == (1, len(images[0]))
    next_day(database)
    assert mine.put(paths[1], images[1]).get_json()["outcome"] == "accepted"


def test_files_that_are_sent_at_once_never_pass_a_quota_together(
    settings: Settings, database: Database, store: ObjectStore, hints: Hints
) -> None:
    _, key_id = make_key(database, files_per_day=5)
    with database.begin() as session:
        project_id = session.scalars(sa.select(Project.id).where(Project.name == "ward")).one()

    def send(number: int) -> bool:
        try:
            Intake(settings, database, store, hints, project_id, key_id=key_id).receive(iter([png(number)]))
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(send, range(16)))
    assert sum(taken) == 5
    assert used(database, key_id)[0] == 5
    with database.begin() as session:
        quota = find_quota(session, key_id)
        assert quota is not None
        with pytest.raises(QuotaExceeded):
            quota.check(session, 1, 0)
    # What was stored a moment too late does not stay.
    finish_all(database, store)
    kept = {original_key(hashlib.sha256(png(number)).hexdigest()) for number, was in enumerate(taken) if was}
    assert set(store.keys("originals/")) == kept


def test_a_file_that_is_refused_costs_nothing_and_keys_without_a_quota_are_not_counted(
    api: Api, keys: Keys, database: Database
) -> None:
    key, key_id = make_key(database, files_per_day=2)
    mine = api.as_(key)
    assert mine.send(("a", b"no image")).get_json()["files"][0]["outcome"] == "rejected"
    assert used(database, key_id) == (0, 0)
    api.send(("a", png(1)))
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Usage)) == 0
