"""What becomes of the files of a request."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import redis
import sqlalchemy as sa

from shared.database import Database
from shared.object_store import PART_BYTES, ObjectStore, original_key
from shared.settings import Settings
from shared.tables import Image, Job, Model, Study
from shared.version import RENDITION_VERSION
from tests.expected_outcomes import EXPECTED_OUTCOMES
from tests.integration.conftest import Api, png
from tests.synthetic_dicom import make_dicom, make_image

#: What only decoding tells is accepted at intake, and rejected by `prepare`.
FOUND_WHEN_DECODED = "undecodable_pixel_data"


def outcomes(response) -> list[tuple[str, str, str | None]]:
    assert response.status_code == 202, response.get_data(as_text=True)
    return [(file["name"], file["outcome"], file["code"]) for file in response.get_json()["files"]]


def count(database: Database, table: type) -> int:
    with database.begin() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def dicom(seed: int = 1, **elements: object) -> bytes:
    return make_dicom(make_image() // np.uint16(seed), **elements)


def make_model(database: Database, name: str) -> str:
    with database.begin() as session:
        model = Model(name=name, digest=name * 8, card={}, weights_sha256="0" * 64)
        session.add(model)
        session.flush()
        return str(model.id)


def test_each_file_has_its_own_outcome(api: Api, store: ObjectStore, database: Database) -> None:
    dicom_file, picture = dicom(), png()
    report = make_dicom(make_image(), Rows=None, Columns=None)
    response = api.send(
        ("image.dcm", dicom_file),
        ("notes.txt", b"no image at all"),
        ("picture.png", picture),
        ("nothing.dcm", b""),
        ("report.dcm", report),
        ("again.dcm", dicom_file),
    )
    assert outcomes(response) == [
        ("image.dcm", "accepted", None),
        ("notes.txt", "rejected", "unsupported_file_type"),
        ("picture.png", "accepted", None),
        ("nothing.dcm", "rejected", "empty_file"),
        ("report.dcm", "rejected", "not_an_image"),
        ("again.dcm", "duplicate", None),
    ]
    files = response.get_json()["files"]
    assert all(file["reason"] for file in files if file["outcome"] == "rejected")
    assert all(file["job_id"] is None for file in files if file["outcome"] == "rejected")
    ids = ("study_id", "image_id", "job_id")
    assert [files[0][name] for name in ids] == [files[5][name] for name in ids]
    assert count(database, Image) == count(database, Job) == count(database, Study) == 2
    with database.begin() as session:
        image = session.get_one(Image, files[0]["image_id"])
        assert (image.byte_count, image.height_px, image.width_px) == (len(dicom_file), 96, 80)
        assert store.get(original_key(image.sha256), sha256=image.sha256) == dicom_file


def test_a_study_instance_uid_groups_images_of_one_project(api: Api, keys, database: Database) -> None:
    one, two, other = dicom(1), dicom(2), dicom(3, StudyInstanceUID="9.9")
    files = api.send(("1", one), ("2", two), ("3", other), ("4", png(1)), ("5", png(2))).get_json()["files"]
    studies = [file["study_id"] for file in files]
    assert studies[0] == studies[1]
    assert len(set(studies)) == 4
    theirs = api.as_(keys.stranger).send(("1", one)).get_json()["files"]
    assert theirs[0]["outcome"] == "accepted"
    assert theirs[0]["study_id"] not in studies


def test_the_same_file_at_the_same_time_is_one_image_and_one_job(api: Api, database: Database) -> None:
    """Of a DICOM file, and of a PNG, whose study must not be left behind by those that lose the race."""
    for content in (dicom(), png()):
        before = Counter({table: count(database, table) for table in (Study, Image, Job)})
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _, content=content: api.send(("image", content)), range(8)))
        assert Counter(outcomes(answer)[0][1] for answer in answers) == {"accepted": 1, "duplicate": 7}
        assert len({answer.get_json()["files"][0]["job_id"] for answer in answers}) == 1
        after = {table: count(database, table) for table in (Study, Image, Job)}
        assert after == {table: before[table] + 1 for table in (Study, Image, Job)}


def test_files_around_the_size_of_a_part_are_stored_whole(api: Api, store: ObjectStore, database: Database) -> None:
    header = dicom()
    for size in (PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 17):
        content = header + np.random.default_rng(size).bytes(size - len(header))
        (file,) = api.send(("large.dcm", content)).get_json()["files"]
        assert file["outcome"] == "accepted"
        with database.begin() as session:
            image = session.get_one(Image, file["image_id"])
            assert image.byte_count == size
            assert store.get(original_key(image.sha256), sha256=image.sha256) == content


def test_a_model_that_is_named_gets_a_job_of_its_own(api: Api, database: Database) -> None:
    first, second, third = (make_model(database, name) for name in ("first", "second", "third"))
    plain = api.send(("a", png())).get_json()["files"][0]
    named = api.send(("a", png()), ("a", png()), model_id=first).get_json()["files"]
    assert [file["outcome"] for file in named] == ["accepted", "duplicate"]
    assert named[0]["image_id"] == plain["image_id"]
    assert named[0]["job_id"] == named[1]["job_id"] != plain["job_id"]
    job = api.get(f"/v1/jobs/{named[0]['job_id']}").get_json()
    assert (job["state"], job["model_id"]) == ("queued", first)

    # A rendition is used again, unless it was made in another way than now.
    for version, model, state in ((RENDITION_VERSION, second, "ready"), (RENDITION_VERSION - 1, third, "queued")):
        with database.begin() as session:
            session.execute(sa.update(Image).values(rendition_sha256="0" * 64, rendition_version=version))
        again = api.send(("a", png()), model_id=model).get_json()["files"][0]
        job = api.get(f"/v1/jobs/{again['job_id']}").get_json()
        assert (again["outcome"], job["state"], job["ready_at"] is None) == ("accepted", state, state == "queued")

    response = api.send(("a", png()), model_id=plain["job_id"])
    assert (response.status_code, response.get_json()["code"]) == (404, "not_found")


def test_what_failed_or_was_cancelled_is_tried_anew_when_sent_again(api: Api, database: Database) -> None:
    first = api.send(("a", png())).get_json()["files"][0]
    with database.begin() as session:
        session.execute(sa.update(Job).values(state="failed", code="worker_lost"))
    with ThreadPoolExecutor(8) as pool:
        answers = [answer.get_json()["files"][0] for answer in pool.map(lambda _: api.send(("a", png())), range(8))]
    assert Counter(file["outcome"] for file in answers) == {"accepted": 1, "duplicate": 7}
    (job_id,) = {file["job_id"] for file in answers}
    assert job_id != first["job_id"]
    assert {file["image_id"] for file in answers} == {first["image_id"]}


def test_one_missing_job_is_made_once_by_concurrent_requests(api: Api, database: Database) -> None:
    model = make_model(database, "named")
    api.send(("a", png()))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.send(("a", png()), model_id=model), range(8)))
    assert Counter(outcomes(answer)[0][1] for answer in answers) == {"accepted": 1, "duplicate": 7}
    assert count(database, Job) == 2


def test_the_priority_is_kept_and_bounded(api: Api) -> None:
    for query, expected in (({}, 5), ({"priority": 0}, 0), ({"priority": 9}, 9)):
        (file,) = api.send(("a", png(expected)), **query).get_json()["files"]
        assert api.get(f"/v1/jobs/{file['job_id']}").get_json()["priority"] == expected
    assert api.send(("a", png(10)), priority=10).status_code == 422


def test_limits_are_named(make_api: Callable[[Settings], Api], settings: Settings, database: Database) -> None:
    api = make_api(settings.model_copy(update={"max_upload_bytes": 100_000, "max_files": 2}))
    large = api.send(("a", png() + bytes(100_000)))
    many = api.send(("a", png(1)), ("b", png(2)), ("c", png(3)))
    for response, limit in ((large, "max_upload_bytes"), (many, "max_files")):
        assert response.status_code == 413
        assert response.content_type == "application/problem+json"
        problem = response.get_json()
        assert (problem["code"], problem["limit"]) == ("limit_exceeded", limit)
        assert limit in problem["detail"]
    assert count(database, Image) == 2  # those before the limit stay; sent again they are duplicates


def test_a_request_without_files_says_so(api: Api) -> None:
    for response in (api.post("/v1/studies"), api.send()):
        assert (response.status_code, response.get_json()["code"]) == (400, "no_files")


def test_new_jobs_are_hinted_once_a_request(api: Api, settings: Settings) -> None:
    broker = redis.Redis.from_url(settings.redis_url.get_secret_value())
    api.send(*((str(seed), png(seed)) for seed in range(5)))
    assert broker.llen("prepare") == 1  # no worker lives, so one hint
    broker.delete("prepare")
    api.send(*((str(seed), png(seed)) for seed in range(5)))
    assert broker.llen("prepare") == 0
    broker.close()


def test_no_name_of_a_file_and_no_patient_is_kept(api: Api, database: Database, capfd) -> None:
    api.send(("Doe^Jane.dcm", dicom(PatientName="Doe^Jane")), ("Doe^Jane.txt", b"x"))
    with database.begin() as session:
        tables = session.scalars(sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        rows = " ".join(session.scalar(sa.text(f"SELECT coalesce(json_agg({t})::text, '') FROM {t}")) for t in tables)
    written = "".join(capfd.readouterr())
    assert "1.2.3.4" in rows  # the identifiers are there
    assert "Doe" not in rows + written
    assert "Jane" not in rows + written


def test_real_files_are_accepted_or_rejected_by_their_header(api: Api, shared_data: Path) -> None:
    names = sorted(EXPECTED_OUTCOMES)
    response = api.send(*((name, (shared_data / name).read_bytes()) for name in names))
    expected = {name: None if code in ("ok", FOUND_WHEN_DECODED) else code for name, code in EXPECTED_OUTCOMES.items()}
    assert {name: code for name, _, code in outcomes(response)} == expected


def test_a_jpeg_is_an_image_too(api: Api) -> None:
    import PIL.Image

    buffer = BytesIO()
    PIL.Image.fromarray((make_image() >> 4).astype(np.uint8)).save(buffer, "JPEG")
    assert outcomes(api.send(("image.jpg", buffer.getvalue()))) == [("image.jpg", "accepted", None)]


@pytest.mark.parametrize("down", ["object_store", "database"])
def test_a_server_that_is_down_answers_503_and_leaves_no_row(
    make_api: Callable[[Settings], Api], settings: Settings, database: Database, down: str
) -> None:
    api = make_api(settings)
    assert api.get("/v1/models").status_code == 200  # so that the key is known
    nowhere = {
        "object_store": {"s3_endpoint_url": "http://127.0.0.1:1"},
        "database": {"database_url": settings.database_url.__class__("postgresql://x@127.0.0.1:1/x")},
    }[down]
    response = make_api(settings.model_copy(update=nowhere)).send(("a", png()))
    assert response.status_code == 503
    assert response.content_type == "application/problem+json"
    assert response.get_json()["code"] == f"{down}_unavailable"
    assert int(response.headers["Retry-After"]) > 0
    assert count(database, Image) == count(database, Job) == count(database, Study) == 0
    assert outcomes(api.send(("a", png()))) == [("a", "accepted", None)]
