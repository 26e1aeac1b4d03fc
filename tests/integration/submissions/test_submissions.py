"""Bulk submissions over HTTP: announced, uploaded, taken in, watched, retried and cancelled."""

import csv
import hashlib
import io
import json
import secrets
import socket
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import boto3
import httpx
import pytest
import sqlalchemy as sa

from api.submissions import announcing
from shared.database import Database
from shared.leases import final_values, renew
from shared.object_store import ObjectStore
from shared.queue.claim import claim
from shared.queue.files import claim_files, finish_file
from shared.queue.hints import Hints
from shared.queue.stages import PREPARE
from shared.settings import Settings
from shared.submissions import changes, progress
from shared.submissions.progress import sweep_submissions
from shared.tables import Image, Job, Submission, SubmissionFile, WebhookDelivery
from shared.version import RENDITION_VERSION
from shared.vocabulary.states import FileState, JobState, Scope
from tests.integration.conftest import Api, Keys, Server, png
from tests.integration.submitting import Desk
from tests.waiting import DEADLINE_S, wait_for, wait_until_blocked

MIB = 1024**2
MISSING = "00000000-0000-0000-0000-000000000000"


def told(data: bytes, name: str = "image.png") -> dict[str, Any]:
    """A file as it is announced."""
    return {"name": name, "byte_count": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def begin(api: Api, *files: bytes, **request: object) -> tuple[str, list[dict]]:
    """Begin a submission; return its path, and what to do with each file."""
    response = api.post("/v1/submissions", {"files": [told(file) for file in files], **request})
    assert response.status_code == 201, response.text
    return f"/v1/submissions/{response.json['submission']['id']}", response.json["uploads"]


def send(uploads: list[dict], *files: bytes) -> None:
    """Put files where the server said."""
    for upload, file in zip(uploads, files, strict=True):
        response = httpx.put(upload["url"], content=file, headers=upload["headers"])
        assert response.is_success, response.text


def outcomes(api: Api, path: str) -> list[str]:
    return [row["outcome"] for row in api.get(f"{path}/manifest").json["files"]]


def end_jobs(database: Database, state: JobState, *where: sa.ColumnElement[bool], **values: object) -> int:
    """Have the open jobs end, as workers do."""
    change = sa.update(Job).where(Job.finished_at.is_(None), *where).values(**final_values(state), **values)
    with database.begin() as session:
        return len(session.scalars(change.returning(Job.id)).all())


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    """Clients upload straight to the object store."""
    return environ | {"CARINA_DIRECT_UPLOADS": "true"}


@pytest.fixture
def desk(settings: Settings, database: Database, hints: Hints) -> Desk:
    """Intake workers."""
    return Desk(settings, database, hints)


def test_files_are_announced_uploaded_taken_in_and_accounted_for(api: Api, desk: Desk, database: Database) -> None:
    images = [png(1), png(2), b"no picture"]
    path, uploads = begin(api, *images, priority=7)
    assert [(upload["number"], upload["state"], upload["through_api"]) for upload in uploads] == [
        (0, "expected", False),
        (1, "expected", False),
        (2, "expected", False),
    ]
    more = api.post(f"{path}/files", {"files": [told(png(3))]}).json["uploads"]
    assert more[0]["number"] == 3
    send([*uploads, *more], *images, png(3))
    answer = api.post(f"{path}/arrived", {"numbers": [0, 1]}).json
    assert (answer["state"], answer["file_count"]) == ("open", 4)
    assert answer["counts"]["arrived"] == answer["counts"]["expected"] == 2
    assert api.post(f"{path}/complete").json["state"] == "processing"
    desk.receive()
    assert outcomes(api, path) == ["accepted", "accepted", "rejected:unsupported_file_type", "accepted"]
    with database.begin() as session:
        assert set(session.scalars(sa.select(Job.priority))) == {7}
    assert end_jobs(database, JobState.SUCCEEDED) == 3
    answer = api.get(path).json
    assert answer["state"] == "completed_with_errors"
    assert (answer["counts"]["succeeded"], answer["counts"]["rejected"]) == (3, 1)
    assert answer["codes"] == {"unsupported_file_type": 1}
    assert answer["files_per_s"] > 0
    assert answer["eta_s"] == 0
    assert api.get("/v1/submissions").json["submissions"] == [answer]
    assert api.post(f"{path}/files", {"files": [told(png(4))]}).json["code"] == "submission_not_open"


def test_what_is_known_already_need_not_be_sent(api: Api, keys: Keys) -> None:
    api.send(("image.png", png(1)))
    path, uploads = begin(api, png(1), png(2))
    assert [upload["state"] for upload in uploads] == ["duplicate", "expected"]
    assert uploads[0]["url"] is None
    row = api.get(f"{path}/manifest").json["files"][0]
    assert row["outcome"] == "duplicate"
    assert None not in (row["study_id"], row["image_id"], row["job_id"])
    # Elsewhere it is not known.
    elsewhere = api.as_(keys.stranger)
    _, uploads = begin(elsewhere, png(1))
    assert uploads[0]["state"] == "expected"


def test_a_submission_waits_for_the_jobs_of_its_duplicates(api: Api, desk: Desk, database: Database) -> None:
    api.send(("image.png", png(1)), ("image.png", png(2)))
    path, uploads = begin(api, png(1), png(2))
    assert [upload["state"] for upload in uploads] == ["duplicate", "duplicate"]
    api.post(f"{path}/complete")
    sweep_submissions(database, desk.settings)
    told = api.get(path).json
    assert (told["state"], told["counts"]["duplicate"], told["files_per_s"]) == ("processing", 2, None)
    [first, _] = api.get(f"{path}/manifest").json["files"]
    end_jobs(database, JobState.SUCCEEDED, Job.id == UUID(first["job_id"]))
    sweep_submissions(database, desk.settings)
    told = api.get(path).json
    assert (told["state"], told["eta_s"] is None) == ("processing", False)
    end_jobs(database, JobState.FAILED, code="worker_lost", reason="It was lost.")
    sweep_submissions(database, desk.settings)
    told = api.get(path).json
    assert (told["state"], told["counts"]["duplicate"], told["codes"]) == (
        "completed_with_errors",
        1,
        {"worker_lost": 1},
    )
    # Where all is known and done there is nothing to wait for.
    path, _ = begin(api, png(1))
    assert api.post(f"{path}/complete").json["state"] == "completed"


def test_an_upload_has_the_size_that_was_announced(api: Api, store: ObjectStore) -> None:
    _, uploads = begin(api, b"12345")
    for cheat in (b"1234", b"123456"):
        assert httpx.put(uploads[0]["url"], content=cheat).status_code == 403
    assert list(store.keys("incoming/")) == []
    send(uploads, b"12345")


def test_a_large_file_is_sent_in_parts_and_goes_on_where_it_broke_off(
    api: Api, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "WHOLE_BYTES", MIB)
    monkeypatch.setattr(announcing, "_PART_BYTES", 5 * MIB)
    image = png(1)
    data = image + bytes(11 * MIB)  # what follows a picture does not count
    path, (upload,) = begin(api, data)
    assert upload["url"] is None
    parts = upload["parts"]
    assert [(part["offset"], part["byte_count"], part["done"]) for part in parts] == [
        (0, 5 * MIB, False),
        (5 * MIB, 5 * MIB, False),
        (10 * MIB, len(data) - 10 * MIB, False),
    ]

    def put(part: dict) -> None:
        piece = data[part["offset"] : part["offset"] + part["byte_count"]]
        assert httpx.put(part["url"], content=piece).is_success
        assert httpx.put(part["url"], content=piece + b"!").status_code == 403

    put(parts[1])
    (upload,) = api.get(f"{path}/uploads").json["uploads"]
    assert [part["done"] for part in upload["parts"]] == [False, True, False]
    api.post(f"{path}/complete")  # too early
    desk.receive()
    assert outcomes(api, path) == ["failed:not_uploaded"]
    assert api.get(path).json["state"] == "completed_with_errors"
    answer = api.post(f"{path}/retry").json
    assert (answer["retried"], answer["to_upload"], answer["submission"]["state"]) == (0, 1, "processing")
    (upload,) = api.get(f"{path}/uploads").json["uploads"]
    assert [part["done"] for part in upload["parts"]] == [False, True, False]
    put(upload["parts"][0])
    put(upload["parts"][2])
    api.post(f"{path}/arrived", {"numbers": [0]})
    desk.receive()
    assert outcomes(api, path) == ["accepted"]


def test_an_upload_in_parts_that_was_removed_begins_anew(
    api: Api, store: ObjectStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "WHOLE_BYTES", MIB)
    path, (first,) = begin(api, bytes(2 * MIB))
    with database.begin() as session:
        file = session.scalars(sa.select(SubmissionFile)).one()
        key, upload_id = progress.incoming_key(file.submission_id, 0), file.upload_id
    store.abort_upload(key, upload_id)
    (second,) = api.get(f"{path}/uploads").json["uploads"]
    assert second["parts"][0]["url"] != first["parts"][0]["url"]
    assert httpx.put(second["parts"][0]["url"], content=bytes(2 * MIB)).is_success


def test_uploads_are_shown_page_by_page_with_fresh_urls(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = begin(api, *(png(seed) for seed in range(5)))
    api.post(f"{path}/arrived", {"numbers": [1]})
    page = api.get(f"{path}/uploads", limit=3).json
    assert ([upload["number"] for upload in page["uploads"]], page["next"]) == ([0, 2, 3], 3)
    page = api.get(f"{path}/uploads", limit=3, after=3).json
    assert ([upload["number"] for upload in page["uploads"]], page["next"]) == ([4], None)
    # An answer has room for so many URLs only; what had none is on the next page.
    monkeypatch.setattr(announcing, "_MAX_URLS", 2)
    page = api.get(f"{path}/uploads").json
    assert ([upload["number"] for upload in page["uploads"]], page["next"]) == ([0, 2], 2)
    page = api.get(f"{path}/uploads", after=2).json
    assert ([upload["number"] for upload in page["uploads"]], page["next"]) == ([3, 4], None)


def test_bytes_that_come_through_the_api_are_taken_in_at_once(
    make_api: Callable[[Settings], Api], settings: Settings, database: Database
) -> None:
    api = make_api(settings.model_copy(update={"direct_uploads": False}))
    images = [png(1), png(2), b"no picture", png(1)]
    path, uploads = begin(api, *images)
    assert all(upload["through_api"] and upload["url"].startswith("http://localhost/v1/") for upload in uploads)
    rows = [api.put(upload["url"], image) for upload, image in zip(uploads, images, strict=True)]
    assert [row.status_code for row in rows] == [200] * 4
    expected = ["accepted", "accepted", "rejected:unsupported_file_type", "duplicate"]
    assert [row.json["outcome"] for row in rows] == outcomes(api, path) == expected
    again = api.put(uploads[0]["url"], images[0])
    assert again.json == rows[0].json
    assert api.post(f"{path}/complete").json["counts"]["accepted"] == 2
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 2
        assert None not in set(session.scalars(sa.select(Job.submission_id)))


def zipped(*files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, file in enumerate(files):
            archive.writestr(f"{number}.png", file)
    return buffer.getvalue()


def test_an_archive_that_comes_through_the_api_is_unpacked(api: Api, desk: Desk, store: ObjectStore) -> None:
    archive = zipped(png(1), b"no picture")
    path, _ = begin(api, archive)
    for _ in range(2):  # the answer may be lost
        assert api.put(f"{path}/files/0/content", archive).json["outcome"] == "arrived"
    assert api.put(f"{path}/files/0/content", b"?" * len(archive)).json["outcome"] == "failed:digest_mismatch"
    api.post(f"{path}/retry")
    api.put(f"{path}/files/0/content", archive)
    api.post(f"{path}/complete")
    desk.receive()
    rows = api.get(f"{path}/manifest").json["files"]
    assert [row["outcome"] for row in rows] == ["unpacked", "accepted", "rejected:unsupported_file_type"]
    assert [(row["archive_number"], row["entry_number"]) for row in rows] == [(None, None), (0, 0), (0, 1)]
    assert api.get(path).json["counts"]["unpacked"] == 1
    assert list(store.keys("incoming/")) == []


def test_an_archive_that_is_being_unpacked_is_not_taken_twice(api: Api, database: Database) -> None:
    """The answer to the first request was lost."""
    archive = zipped(png(1))
    path, _ = begin(api, archive)
    api.put(f"{path}/files/0/content", archive)
    with database.begin() as session:
        assert claim_files(session, "receiver", limit=1, lease_s=60)
    assert api.put(f"{path}/files/0/content", archive).status_code == 200


def test_clients_may_know_the_object_store_by_another_name(
    make_api: Callable[[Settings], Api], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "WHOLE_BYTES", MIB)
    public = settings.s3_endpoint_url.replace("127.0.0.1", "localhost")
    _, uploads = begin(make_api(settings.model_copy(update={"s3_public_url": public})), png(1), bytes(2 * MIB))
    for url, body in ((uploads[0]["url"], png(1)), (uploads[1]["parts"][0]["url"], bytes(2 * MIB))):
        assert url.startswith(f"{public}/")
        assert httpx.put(url, content=body).is_success
        # The name is part of what is signed.
        assert httpx.put(url.replace("localhost", "127.0.0.1"), content=body).status_code == 403


def test_bytes_that_are_not_what_was_announced_are_not_kept(api: Api, store: ObjectStore, database: Database) -> None:
    images = [png(1), png(2)]
    path, _ = begin(api, *images)
    other = bytes([images[1][0] ^ 1]) + images[1][1:]
    assert api.put(f"{path}/files/0/content", images[0][:-1]).json["outcome"] == "failed:size_mismatch"
    assert api.put(f"{path}/files/1/content", other).json["outcome"] == "failed:digest_mismatch"
    assert list(store.keys("")) == []
    assert api.put(f"{path}/files/1/content", images[1]).json["outcome"] == "failed:digest_mismatch", "as before"
    assert api.post(f"{path}/retry").json["to_upload"] == 2
    assert api.put(f"{path}/files/1/content", images[1]).json["outcome"] == "accepted"
    assert api.put(f"{path}/files/2/content", images[1]).status_code == 404
    assert api.put(f"{path}/files/{2**70}/content", images[1]).status_code == 422


def test_a_body_that_breaks_off_leaves_nothing(
    server: Server, keys: Keys, api: Api, store: ObjectStore, database: Database
) -> None:
    image = png(1)
    path, _ = begin(api, image)
    head = f"PUT {path}/files/0/content HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {keys.both}\r\n"
    for cut in (0, 1, len(image) // 2, len(image) - 1):
        with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
            connection.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image[:cut])
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answer:
                assert b'"code":"upload_cut_short"' in answer.read(), cut
    assert list(store.keys("")) == []
    assert outcomes(api, path) == ["expected"]
    response = httpx.put(
        f"{server.url}{path}/files/0/content", content=image, headers={"Authorization": f"Bearer {keys.both}"}
    )
    assert response.json()["outcome"] == "accepted"


def test_where_originals_are_replaced_nothing_identifiable_is_kept(
    make_api: Callable[[Settings], Api], settings: Settings, database: Database
) -> None:
    api = make_api(settings.model_copy(update={"deidentify": "basic"}))
    path, (upload,) = begin(api, png(1))
    assert upload["through_api"]
    assert api.put(upload["url"], png(1)).json["outcome"] == "accepted"
    assert api.get(f"{path}/manifest").json["files"][0]["name"] is None
    path, _ = begin(api, zipped(png(1)))
    assert api.put(f"{path}/files/0/content", zipped(png(1))).json["outcome"] == "rejected:archive_not_taken"
    # The original has another digest than what was sent; that one of the store's is sent is chance.
    _, (upload,) = begin(api, png(1))
    assert upload["state"] == "expected"


def test_only_allowed_buckets_are_read(
    make_api: Callable[[Settings], Api], settings: Settings, database: Database, hints: Hints
) -> None:
    bucket = f"images-{secrets.token_hex(4)}"
    places = f"ward:other, ward:{bucket}/ward, elsewhere:{bucket},ward:{settings.s3_bucket}"
    allowed = settings.model_copy(update={"import_buckets": places})
    api = make_api(allowed)
    for source in ("s3://secret/", "s3://", "http://films/x", f"s3://{settings.s3_bucket}/originals"):
        answer = api.post("/v1/submissions", {}, **{"from": source})
        assert answer.json["code"] in ("bucket_not_allowed", "invalid_request"), source
    assert api.post("/v1/submissions", {}, **{"from": "s3://secret/x"}).status_code == 403
    for prefix in ("", "/", "/elsewhere", "/war", "/ward2/", "/ward/../elsewhere", "/ward//x"):
        answer = api.post("/v1/submissions", {}, **{"from": f"s3://{bucket}{prefix}"})
        assert (answer.status_code, answer.json["code"]) == (403, "bucket_not_allowed"), prefix
    refused = api.post("/v1/submissions", {"files": [told(png(1))]}, **{"from": f"s3://{bucket}/ward/x"})
    assert refused.status_code == 422
    assert api.post("/v1/submissions", {}, **{"from": "s3://other/"}).json["code"] == "bucket_unreadable"

    s3 = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
    )
    s3.create_bucket(Bucket=bucket)
    for seed in (1, 2):
        s3.put_object(Bucket=bucket, Key=f"ward/{seed}.png", Body=png(seed))
    s3.put_object(Bucket=bucket, Key="elsewhere/3.png", Body=png(3))
    s3.put_object(Bucket=bucket, Key="ward2/4.png", Body=png(4))
    s3.close()
    answer = api.post("/v1/submissions", {}, **{"from": f"s3://{bucket}/ward"})
    assert answer.status_code == 201
    submission = answer.json["submission"]
    assert (submission["source"], submission["state"]) == (f"s3://{bucket}/ward/", "open")
    path = f"/v1/submissions/{submission['id']}"
    assert api.post(f"{path}/complete").json["code"] == "submission_not_open"
    assert api.post(f"{path}/files", {"files": [told(png(4))]}).json["code"] == "submission_not_open"
    Desk(allowed, database, hints).receive()
    assert outcomes(api, path) == ["accepted", "accepted"]
    assert api.get(path).json["state"] == "processing"


def test_a_file_that_never_came_fails_and_can_be_sent_later(api: Api, desk: Desk, database: Database) -> None:
    path, uploads = begin(api, png(1), png(2))
    send(uploads[:1], png(1))
    api.post(f"{path}/complete")
    desk.receive()
    assert outcomes(api, path) == ["accepted", "failed:not_uploaded"]
    end_jobs(database, JobState.SUCCEEDED)
    assert api.get(path).json["state"] == "completed_with_errors"
    assert api.post(f"{path}/retry").json["to_upload"] == 1
    assert outcomes(api, path) == ["succeeded", "expected"]
    uploads = api.get(f"{path}/uploads").json["uploads"]
    send(uploads, png(2))
    assert api.post(f"{path}/complete").json["state"] == "processing"
    desk.receive()
    end_jobs(database, JobState.SUCCEEDED)
    answer = api.get(path).json
    assert (answer["state"], answer["counts"]["succeeded"]) == ("completed", 2)
    assert api.post(f"{path}/retry").json["submission"]["state"] == "completed"


def test_only_what_failed_is_tried_again(api: Api, desk: Desk, database: Database) -> None:
    images = [png(seed) for seed in range(4)]
    path, uploads = begin(api, *images, priority=8)
    send(uploads, *images)
    api.post(f"{path}/complete")
    desk.receive()
    rows = api.get(f"{path}/manifest").json["files"]
    of_file = [Job.id == UUID(row["job_id"]) for row in rows]
    end_jobs(database, JobState.SUCCEEDED, of_file[0])
    end_jobs(database, JobState.REJECTED, of_file[1], code="undecodable_pixel_data", reason="It is broken.")
    end_jobs(database, JobState.FAILED, of_file[2], code="detection_failed", reason="It went wrong.")
    with database.begin() as session:  # both have renditions, but one of them was made in another way than now
        for row, version in ((rows[2], RENDITION_VERSION), (rows[3], RENDITION_VERSION - 1)):
            rendered = {"rendition_sha256": "0" * 64, "rendition_version": version}
            session.execute(sa.update(Image).where(Image.id == UUID(row["image_id"])).values(**rendered))
    end_jobs(database, JobState.FAILED, of_file[3], code="worker_lost", reason="It fell silent.")
    answer = api.get(path).json
    assert (answer["state"], answer["codes"]) == (
        "completed_with_errors",
        {"undecodable_pixel_data": 1, "detection_failed": 1, "worker_lost": 1},
    )
    answer = api.post(f"{path}/retry").json
    assert (answer["retried"], answer["to_upload"]) == (2, 0)
    assert (answer["submission"]["state"], answer["submission"]["finished_at"]) == ("processing", None)
    again = api.get(f"{path}/manifest").json["files"]
    assert [row["outcome"] for row in again] == [
        "succeeded",
        "rejected:undecodable_pixel_data",
        "accepted",
        "accepted",
    ]
    assert [row["job_id"] == old["job_id"] for row, old in zip(again, rows, strict=True)] == [True, True, False, False]
    with database.begin() as session:
        new = [session.get_one(Job, UUID(row["job_id"])) for row in again[2:]]
        assert [(job.state, job.priority, job.attempt) for job in new] == [("ready", 8, 0), ("queued", 8, 0)]
        assert [job.ready_at is None for job in new] == [False, True]
    assert api.post(f"{path}/retry").json["retried"] == 0
    end_jobs(database, JobState.SUCCEEDED)
    assert api.get(path).json["counts"]["succeeded"] == 3


def test_a_duplicate_of_what_has_no_result_is_accounted_for_and_tried_again(
    api: Api, desk: Desk, database: Database
) -> None:
    images = [png(seed) for seed in range(3)]
    path, uploads = begin(api, *images)
    send(uploads, *images)
    api.post(f"{path}/complete")
    desk.receive()
    job_ids = [UUID(row["job_id"]) for row in api.get(f"{path}/manifest").json["files"]]
    end_jobs(database, JobState.REJECTED, Job.id == job_ids[0], code="blank_image", reason="It is blank.")
    other, uploads = begin(api, *images)
    assert [upload["state"] for upload in uploads] == ["duplicate"] * 3
    assert outcomes(api, other) == ["rejected:blank_image", "duplicate", "duplicate"]
    assert api.post(f"{other}/complete").json["state"] == "processing"
    end_jobs(database, JobState.FAILED, Job.id == job_ids[1], code="worker_lost", reason="It was lost.")
    end_jobs(database, JobState.SUCCEEDED)
    sweep_submissions(database, desk.settings)
    assert api.get(other).json["state"] == "completed_with_errors"
    assert outcomes(api, other) == ["rejected:blank_image", "failed:worker_lost", "duplicate"]
    answer = api.post(f"{other}/retry").json
    assert (answer["retried"], answer["to_upload"], api.get(other).json["state"]) == (1, 0, "processing")
    assert outcomes(api, other) == ["rejected:blank_image", "accepted", "duplicate"]
    assert outcomes(api, path) == ["rejected:blank_image", "failed:worker_lost", "succeeded"]
    assert end_jobs(database, JobState.SUCCEEDED) == 1
    sweep_submissions(database, desk.settings)
    assert (
        api.get(other).json["counts"] | {"succeeded": 1, "duplicate": 1, "rejected": 1} == api.get(other).json["counts"]
    )


def test_a_file_whose_attempts_are_used_up_goes_back_to_intake(api: Api, desk: Desk) -> None:
    path, uploads = begin(api, png(1))
    send(uploads, png(1))
    api.post(f"{path}/complete")
    desk.set_file(
        UUID(path.rpartition("/")[2]), 0, state="failed", code="worker_lost", attempt=4, finished_at=sa.func.now()
    )
    answer = api.post(f"{path}/retry").json
    assert (answer["retried"], answer["to_upload"]) == (1, 0)
    desk.receive()
    assert outcomes(api, path) == ["accepted"]


def test_cancelling_ends_all_that_is_open_and_nobody_can_commit(api: Api, desk: Desk, database: Database) -> None:
    images = [png(seed) for seed in range(4)]
    path, uploads = begin(api, *images)
    send(uploads, *images)
    api.post(f"{path}/arrived", {"numbers": [0, 1]})
    desk.receive()
    with database.begin() as session:
        (job,) = claim(session, PREPARE, "preparer", limit=1, lease_s=60)
    api.post(f"{path}/arrived", {"numbers": [2]})
    with database.begin() as session:
        (file,) = claim_files(session, "receiver", limit=1, lease_s=60)
    answer = api.post(f"{path}/cancel").json
    assert (answer["state"], answer["counts"]["cancelled"], answer["finished_at"] is None) == ("cancelled", 4, False)
    assert outcomes(api, path) == ["cancelled"] * 4
    with database.begin() as session:
        assert not finish_file(session, file, FileState.ACCEPTED)
        assert not renew(session, [job], lease_s=60)
        assert set(session.scalars(sa.select(Job.state))) == {"cancelled"}
    assert api.put(f"{path}/files/3/content", images[3]).json["code"] == "file_not_expected"
    for action in ("cancel", "retry"):
        assert api.post(f"{path}/{action}").json["code"] == "submission_is_final"
    assert api.post(f"{path}/complete").json["state"] == "cancelled"


def test_cancelling_leaves_others_what_they_count_on(api: Api, desk: Desk, database: Database) -> None:
    images = [png(seed) for seed in range(4)]
    path, uploads = begin(api, *images)
    send(uploads, *images)
    api.post(f"{path}/complete")
    desk.receive()
    other, uploads = begin(api, images[0], png(9), images[3], priority=8)
    assert [upload["state"] for upload in uploads] == ["duplicate", "expected", "duplicate"]
    api.send(("image.png", images[1]))
    job_ids = [UUID(row["job_id"]) for row in api.get(f"{path}/manifest").json["files"]]
    end_jobs(database, JobState.SUCCEEDED, Job.id == job_ids[3])
    answer = api.post(f"{path}/cancel").json
    assert (answer["counts"]["cancelled"], answer["counts"]["succeeded"]) == (3, 1)
    assert outcomes(api, path) == ["cancelled"] * 3 + ["succeeded"]
    with database.begin() as session:
        jobs = [session.get_one(Job, job_id) for job_id in job_ids[:3]]
        assert [(job.state, job.priority) for job in jobs] == [("queued", 8), ("queued", 5), ("cancelled", 5)]
        assert [job.submission_id is None for job in jobs] == [True, True, False]
    assert outcomes(api, other) == ["duplicate", "expected", "duplicate"]
    # What is cancelled can be sent again.
    assert begin(api, images[2])[1][0]["state"] == "expected"


def test_whoever_sends_an_image_while_its_job_is_cancelled_gets_another(
    api: Api, desk: Desk, database: Database
) -> None:
    path, uploads = begin(api, png(1))
    send(uploads, png(1))
    api.post(f"{path}/complete")
    desk.receive()
    with ThreadPoolExecutor() as pool:
        with database.begin() as session:
            submission = session.get_one(Submission, UUID(path.rpartition("/")[2]))
            changes.cancel(session, submission)
            sending = pool.submit(api.send, ("image.png", png(1)))
            wait_until_blocked(database)
            # It is not waited for by who announces many.
            assert begin(api, png(1))[1][0]["state"] == "expected"
        (file,) = sending.result().json["files"]
    assert file["outcome"] == "accepted"
    assert api.get(f"/v1/jobs/{file['job_id']}").json["state"] == "queued"


def test_a_cancel_while_bytes_come_in_leaves_no_job_behind(
    server: Server, keys: Keys, api: Api, database: Database
) -> None:
    image = png(1)
    path, _ = begin(api, image)
    head = f"PUT {path}/files/0/content HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {keys.both}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image[:100])
        time.sleep(0.3)  # it has been looked up
        api.post(f"{path}/cancel")
        connection.sendall(image[100:])
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            assert b'"code":"file_not_expected"' in answer.read()
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(Image)) == 0


def test_the_manifest_is_told_in_pages_and_as_streams(api: Api, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.submissions.manifest._SLICE_ROWS", 2)
    names = ["a.png", 'with "quotes", and more', "Zoë\u00a0.png", "", "e"]
    files = [told(png(seed), name) for seed, name in enumerate(names)]
    created = api.post("/v1/submissions", {"files": files}).json
    path = f"/v1/submissions/{created['submission']['id']}"
    pages, after = [], -1
    while after is not None:
        page = api.get(f"{path}/manifest", after=after, limit=2).json
        pages += page["files"]
        after = page["next"]
    assert [(row["number"], row["name"]) for row in pages] == list(enumerate(names))
    lines = api.get(f"{path}/manifest", format="jsonl")
    assert lines.content_type == "application/jsonl"
    assert [json.loads(line) for line in lines.text.splitlines()] == pages
    table = api.get(f"{path}/manifest", format="csv")
    assert table.content_type == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(table.text, newline="")))
    assert [{name: value or "" for name, value in row.items()} for row in pages] == [
        {**row, "number": int(row["number"]) or "", "byte_count": int(row["byte_count"])} for row in rows
    ]
    assert len(api.get(f"{path}/manifest", format="jsonl", after=3).text.splitlines()) == 1


def test_waiting_ends_when_something_changes(api: Api) -> None:
    path, _ = begin(api, png(1))
    begun = time.monotonic()
    assert api.get(path, wait=0.3).json["state"] == "open"
    assert time.monotonic() - begun >= 0.3

    def tell() -> None:
        api.wait_for_poll()
        api.post(f"{path}/arrived", {"numbers": [0]})

    threading.Thread(target=tell).start()
    begun = time.monotonic()
    assert api.get(path, wait=60).json["counts"]["arrived"] == 1
    assert time.monotonic() - begun < 60
    api.post(f"{path}/cancel")
    begun = time.monotonic()
    assert api.get(path, wait=60).json["state"] == "cancelled"
    assert time.monotonic() - begun < 60


def events(lines: "list[str]") -> list[dict]:
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_progress_is_told_as_it_comes(server: Server, keys: Keys, api: Api) -> None:
    path, _ = begin(api, png(1))
    headers, lines = {"Authorization": f"Bearer {keys.both}"}, []
    with httpx.stream("GET", f"{server.url}{path}/events", headers=headers, timeout=DEADLINE_S) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        for line in response.iter_lines():
            lines.append(line)
            if line.startswith("data: "):
                said = events(lines)
                if len(said) == 1:
                    api.post(f"{path}/arrived", {"numbers": [0]})
                elif len(said) == 2:
                    api.post(f"{path}/cancel")
    assert [event["state"] for event in events(lines)] == ["open", "open", "cancelled"]
    assert lines[0] == "retry: 2000"
    assert "id: final" in lines
    again = httpx.get(f"{server.url}{path}/events", headers=headers | {"Last-Event-ID": "final"})
    assert again.status_code == 204


@pytest.fixture
def few_threads(environ: dict[str, str]) -> None:
    """Four request threads, where the server comes after this."""
    environ["CARINA_API_THREADS"] = "4"


def test_streams_do_not_take_every_thread_and_end_with_the_server(
    few_threads: None, server: Server, keys: Keys, api: Api
) -> None:
    path, _ = begin(api, png(1))
    head = f"GET {path}/events HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {keys.both}\r\n\r\n".encode()
    with ExitStack() as opened:

        def open_stream() -> socket.socket | None:
            """Return a stream that has begun; None where the key has too many requests under way."""
            stream = opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S))
            stream.sendall(head)
            said = b""
            while b"data: " not in said:
                if b" 429 " in said:
                    return None
                said += stream.recv(65536)
            return stream

        streams = [wait_for(open_stream) for _ in range(8)]
        assert httpx.get(f"{server.url}/healthz", timeout=DEADLINE_S).is_success
        server.arbiter.terminate()
        begun = time.monotonic()
        for stream in streams:
            while stream.recv(65536):
                pass
        assert time.monotonic() - begun < 60  # a stream would take minutes


def test_a_submission_of_another_project_does_not_exist(api: Api, keys: Keys) -> None:
    path, _ = begin(api, png(1))
    stranger = api.as_(keys.stranger)
    for target in (path, f"/v1/submissions/{MISSING}"):
        for route in ("", "/uploads", "/manifest", "/events"):
            assert stranger.get(target + route).status_code == 404, route
        for route, body in (
            ("/files", {"files": [told(png(1))]}),
            ("/arrived", {"numbers": [0]}),
            ("/complete", None),
            ("/retry", None),
            ("/cancel", None),
        ):
            assert stranger.post(target + route, body).status_code == 404, route
        assert stranger.put(f"{target}/files/0/content", png(1)).status_code == 404
    assert stranger.get("/v1/submissions").json["submissions"] == []
    assert api.get(path).json["counts"]["expected"] == 1


@pytest.mark.parametrize("scope", [Scope.READ, Scope.SUBMIT])
def test_each_route_wants_its_scope(api: Api, keys: Keys, scope: Scope) -> None:
    path, _ = begin(api, png(1))
    weak = api.as_(keys.read if scope is Scope.READ else keys.submit)
    if scope is Scope.SUBMIT:
        for route in ("", "/manifest", "/events"):
            assert weak.get(path + route).status_code == 403
        assert weak.get("/v1/submissions").status_code == 403
        return
    for route in ("/files", "/arrived", "/complete", "/retry", "/cancel"):
        assert weak.post(path + route, {}).status_code == 403
    assert weak.post("/v1/submissions", {}).status_code == 403
    assert weak.get(f"{path}/uploads").status_code == 403
    assert weak.put(f"{path}/files/0/content", png(1)).status_code == 403


def test_what_makes_no_sense_is_refused(api: Api) -> None:
    good = told(png(1))
    for change in (
        {"byte_count": -1},
        {"sha256": "x"},
        {"sha256": good["sha256"].upper()},
        {"name": "a\0b"},
        {"path": "/etc"},
    ):
        assert api.post("/v1/submissions", {"files": [good | change]}).status_code == 422, change
    assert api.post("/v1/submissions", {"files": [good] * 1001}).status_code == 422
    assert api.post("/v1/submissions", {"model_id": MISSING}).status_code == 404
    path, _ = begin(api, png(1))
    assert api.post(f"{path}/arrived", {"numbers": [2**63]}).status_code == 422
    assert api.post(f"{path}/files", {"files": []}).status_code == 422
    assert api.get(f"{path}/manifest", after=2**63).status_code == 422
    (upload,) = api.post(f"{path}/files", {"files": [good | {"byte_count": 4 * 1024**4}]}).json["uploads"]
    assert (upload["state"], upload["url"]) == ("rejected", None)
    assert outcomes(api, path)[1] == "rejected:file_too_large"


def test_files_that_are_announced_at_once_get_numbers_of_their_own(api: Api) -> None:
    path, _ = begin(api)
    answers = []

    def announce(number: int) -> None:
        files = [told(b"%d %d" % (number, each)) for each in range(20)]
        answers.append([upload["number"] for upload in api.post(f"{path}/files", {"files": files}).json["uploads"]])

    threads = [threading.Thread(target=announce, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for answer in answers for number in answer) == list(range(120))
    assert all(answer == list(range(answer[0], answer[0] + 20)) for answer in answers)
    assert api.get(path).json["file_count"] == 120


def test_the_sweep_closes_what_nobody_goes_on_with_and_ends_what_is_done(
    api: Api, desk: Desk, database: Database, settings: Settings
) -> None:
    old, uploads = begin(api, png(1))
    send(uploads, png(1))
    new, _ = begin(api, png(2))
    with database.begin() as session:
        age = timedelta(hours=settings.submission_expires_h + 1)
        change = sa.update(Submission).where(Submission.id == UUID(old.rpartition("/")[2]))
        session.execute(change.values(created_at=sa.func.now() - age))
    sweep_submissions(database, settings)
    assert [api.get(path).json["state"] for path in (old, new)] == ["processing", "open"]
    desk.receive()
    end_jobs(database, JobState.SUCCEEDED)
    sweep_submissions(database, settings)
    with database.begin() as session:
        row = session.get_one(Submission, UUID(old.rpartition("/")[2]))
        assert (row.state, row.tally["counts"]) == ("completed", {"succeeded": 1})


def test_whoever_asked_is_told_of_the_end_once(
    make_api: Callable[[Settings], Api], keys: Keys, database: Database, settings: Settings
) -> None:
    api = make_api(settings.model_copy(update={"webhook_allow_private": True}))
    hook = {"url": "http://127.0.0.1:9/carina", "events": ["submission.completed"]}
    assert api.as_(keys.admin).post("/v1/webhooks", hook).status_code == 201
    path, _ = begin(api)
    api.post(f"{path}/complete")
    for _ in range(3):
        sweep_submissions(database, settings)
        assert api.get(path).json["state"] == "completed"
    with database.begin() as session:
        (delivery,) = session.scalars(sa.select(WebhookDelivery)).all()
        assert delivery.payload == {"submission_id": path.rpartition("/")[2], "state": "completed", "counts": {}}


def test_slow_counts_are_kept_for_a_while_and_those_of_a_final_submission_for_good(
    api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SLOW_COUNT_S", 0.0)
    monkeypatch.setattr(progress, "KEPT_FOR", 1e9)
    path, _ = begin(api, png(1), png(2))
    assert api.get(path).json["counts"]["expected"] == 2
    api.post(f"{path}/arrived", {"numbers": [0]})
    assert api.get(path).json["counts"]["expected"] == 2  # as it was counted last
    monkeypatch.setattr(progress, "KEPT_FOR", 0)
    assert api.get(path).json["counts"]["expected"] == 1
    api.post(f"{path}/cancel")
    with database.begin() as session:  # nothing of it is read any more
        session.execute(sa.delete(SubmissionFile))
    assert api.get(path).json["counts"]["cancelled"] == 2
