"""The intake worker in this process, on real servers."""

import hashlib
import io
import threading
import zipfile
from collections import Counter

import httpx
import pytest
import structlog
from pydantic import SecretStr

from shared.database import Database
from shared.errors import DigestMismatch, ObjectStoreRefused
from shared.intake.archives import ArchiveKind
from shared.leases import renew
from shared.object_store import PART_BYTES
from shared.object_store.incoming import Incoming
from shared.queue.files import claim_files, finish_file
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.submissions.progress import incoming_key
from shared.vocabulary.states import FileState
from tests.integration.submitting import Desk, large, make_archive
from tests.integration.workshop import dicom
from workers.bucket_listing import BucketListing
from workers.sweep import sweep


class StopAfter(threading.Event):
    """A stop flag that is set once it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def is_set(self) -> bool:
        self._looks -= 1
        return self._looks < 0


@pytest.fixture
def desk(settings: Settings, database: Database, hints: Hints) -> Desk:
    return Desk(settings, database, hints)


def test_what_was_uploaded_has_an_image_and_a_job_and_no_longer_lies_in_the_way(desk: Desk) -> None:
    submission_id = desk.submit(dicom(1), dicom(2), dicom(1))
    desk.receive(intake_threads=1)
    assert desk.outcomes(submission_id) == ["accepted", "accepted", "duplicate"]
    first, second, third = desk.files(submission_id)
    assert third.image_id == first.image_id != second.image_id
    assert first.job_id is not None
    assert desk.counts() == (2, 2)
    assert desk.keys("incoming/") == []
    assert len(desk.keys("originals/")) == 2


def test_what_arrives_otherwise_than_announced_is_to_be_sent_again(desk: Desk) -> None:
    submission_id = desk.submit(dicom(1), dicom(2), dicom(3), dicom(4), large(5))
    keys = [incoming_key(submission_id, number) for number in range(5)]
    desk.incoming.delete(keys[0])
    desk.incoming.put(keys[1], dicom(2)[:-1])
    desk.incoming.put(keys[2], dicom(3)[:-1] + b"!")
    desk.incoming.put(keys[3], b"!" * len(dicom(4)))  # not unfit, but damaged
    desk.incoming.put(keys[4], large(5)[:-1] + b"!")
    desk.receive()
    wrong = ["failed:not_uploaded", "failed:size_mismatch", *["failed:digest_mismatch"] * 3]
    assert desk.outcomes(submission_id) == wrong
    assert desk.counts() == (0, 0)
    assert desk.keys("") == []
    assert desk.multiparts() == []
    assert desk.submission(submission_id).state == "completed_with_errors"
    for number, file in enumerate([dicom(1), dicom(2), dicom(3), dicom(4), large(5)]):
        desk.incoming.put(keys[number], file)
        desk.set_file(submission_id, number, state=FileState.ARRIVED)
    desk.receive()
    assert desk.outcomes(submission_id) == ["accepted"] * 5
    assert desk.keys("incoming/") == []


def test_an_unfit_file_is_rejected_and_not_kept(desk: Desk) -> None:
    submission_id = desk.submit(b"", b"hello", b"hello" * 3_000_000, dicom(1))
    desk.receive(max_upload_bytes=14_000_000)
    assert desk.outcomes(submission_id) == [
        "rejected:empty_file",
        "rejected:unsupported_file_type",
        "rejected:file_too_large",
        "accepted",
    ]
    assert desk.keys("incoming/") == []


def test_an_upload_in_parts_is_completed(desk: Desk) -> None:
    file = large(1)
    submission_id = desk.submit(file, dicom(2))
    for number, parts in ((0, [file[:PART_BYTES], file[PART_BYTES:]]), (1, [])):
        key = incoming_key(submission_id, number)
        desk.incoming.delete(key)
        upload_id = desk.incoming.create_upload(key)
        desk.set_file(submission_id, number, upload_id=upload_id)
        for part_number, part in enumerate(parts[:1], start=1):
            url = desk.incoming.presign_part(key, upload_id, part_number, len(part), expires_s=60)
            httpx.put(url, content=part).raise_for_status()
    desk.receive()
    # What there is stays, so that the upload can go on.
    assert desk.outcomes(submission_id) == ["failed:not_uploaded"] * 2
    assert len(desk.multiparts()) == 2
    first = desk.files(submission_id)[0]
    url = desk.incoming.presign_part(
        incoming_key(submission_id, 0), first.upload_id, 2, len(file) - PART_BYTES, expires_s=60
    )
    httpx.put(url, content=file[PART_BYTES:]).raise_for_status()
    desk.set_file(submission_id, 0, state=FileState.ARRIVED)
    desk.receive()
    assert desk.outcomes(submission_id) == ["accepted", "failed:not_uploaded"]
    assert desk.keys("incoming/") == []


@pytest.mark.parametrize("kind", ArchiveKind)
def test_an_archive_becomes_files_of_its_own(desk: Desk, kind: ArchiveKind) -> None:
    inner = make_archive(ArchiveKind.ZIP, dicom(9))
    archive = make_archive(kind, dicom(1), b"read me", inner, dicom(2), dicom(1), large(3), dicom(9))
    submission_id = desk.submit(archive, dicom(9))
    desk.receive()
    assert desk.outcomes(submission_id)[0] == "unpacked"
    entries = {file.entry_number: file for file in desk.files(submission_id) if file.archive_number == 0}
    assert sorted(entries) == list(range(7))
    outcomes = [f"{entries[number].state}:{entries[number].code or ''}" for number in range(6)]
    assert outcomes == [
        "accepted:",
        "rejected:unsupported_file_type",
        "rejected:nested_archive",
        "accepted:",
        "duplicate:",
        "accepted:",
    ]
    assert sorted([entries[6].state, desk.files(submission_id)[1].state]) == ["accepted", "duplicate"]
    assert desk.counts() == (4, 4)
    assert entries[5].sha256 == hashlib.sha256(large(3)).hexdigest()
    assert all(entry.name is None for entry in entries.values())
    assert [file.number for file in desk.files(submission_id)] == list(range(9))
    assert desk.submission(submission_id).file_count == 9
    assert desk.keys("incoming/") == []


@pytest.mark.parametrize("kind", ArchiveKind)
def test_a_worker_that_stops_puts_an_archive_aside_and_the_next_goes_on(desk: Desk, kind: ArchiveKind) -> None:
    submission_id = desk.submit(make_archive(kind, *(dicom(number) for number in range(9))))
    rounds = 0
    while desk.files(submission_id)[0].state == "arrived":
        desk.receive(stop=StopAfter(5 + len(desk.files(submission_id))))
        rounds += 1
        assert desk.files(submission_id)[0].attempt in (0, 1)
    assert rounds > 2
    assert desk.outcomes(submission_id) == ["unpacked", *["accepted"] * 9]
    assert [file.entry_number for file in desk.files(submission_id)[1:]] == list(range(9))


def test_of_a_broken_archive_what_came_before_stays(desk: Desk) -> None:
    images = [[dicom(10 * n + number) for number in range(5)] for n in range(3)]
    zipped, tar, gzipped = (make_archive(kind, *of) for kind, of in zip(ArchiveKind, images, strict=True))
    cut = tar.index(images[1][4]) + 100
    submission_id = desk.submit(zipped[:-30], tar[:cut], gzipped[:-8], bytes(257) + b"ustar" * 60)
    desk.receive()
    assert desk.outcomes(submission_id)[:4] == ["rejected:malformed_archive"] * 4
    entries = [file.archive_number for file in desk.files(submission_id)[4:]]
    assert (entries.count(0), entries.count(3)) == (0, 0)
    assert (entries.count(1), entries.count(2)) == (4, 5)
    assert desk.keys("incoming/") == []


def test_a_damaged_entry_of_a_zip_takes_no_other_with_it(desk: Desk) -> None:
    archive = bytearray(make_archive(ArchiveKind.ZIP, dicom(1), dicom(2), large(3), dicom(4)))
    with zipfile.ZipFile(io.BytesIO(archive)) as entries:
        starts = [info.header_offset for info in entries.infolist()]
    for number in (1, 2):
        archive[starts[number + 1] - 1000] ^= 0xFF
    submission_id = desk.submit(bytes(archive))
    desk.receive()
    assert desk.outcomes(submission_id) == [
        "unpacked",
        "accepted",
        "rejected:damaged_entry",
        "rejected:damaged_entry",
        "accepted",
    ]
    assert desk.counts() == (2, 2)
    assert len(desk.keys("originals/")) == 2
    assert desk.keys("incoming/") == []


def test_limits_of_archives_are_those_of_the_settings(desk: Desk) -> None:
    archive, bomb = make_archive(ArchiveKind.TAR, dicom(1), dicom(2)), make_archive(ArchiveKind.ZIP, bytes(10**6))
    for changed, files, code in (
        ({"max_archive_entries": 1}, [archive], "archive_too_many_entries"),
        ({"max_archive_bytes": len(dicom(1)) + 1}, [archive], "archive_too_large"),
        ({"max_archive_ratio": 50}, [bomb], "archive_ratio"),
    ):
        submission_id = desk.submit(*files)
        desk.receive(**changed)
        assert desk.outcomes(submission_id)[0] == f"rejected:{code}"


def test_a_cancelled_archive_is_dropped_at_the_next_entry(desk: Desk) -> None:
    submission_id = desk.submit(make_archive(ArchiveKind.TAR, *(dicom(number) for number in range(6))))

    class Cancelling(StopAfter):
        def is_set(self) -> bool:
            if super().is_set():
                values = {"lease_owner": None, "lease_expires_at": None}
                desk.set_file(submission_id, 0, state=FileState.CANCELLED, **values)
            return False

    with desk.receiving(stop=Cancelling(5)) as worker:
        worker.run()
    outcomes = desk.outcomes(submission_id)
    assert outcomes[0] == "cancelled"
    assert 1 <= len(outcomes) < 6
    assert desk.counts() == (len(outcomes) - 1,) * 2
    assert desk.submission(submission_id).file_count == len(outcomes)


def test_an_archive_that_is_overwritten_while_it_is_read_is_not_mixed(desk: Desk) -> None:
    submission_id = desk.submit(make_archive(ArchiveKind.ZIP, dicom(1)))
    key = incoming_key(submission_id, 0)
    file = desk.incoming.open(key)
    assert file.read(0, 4) == b"PK\x03\x04"
    desk.incoming.put(key, make_archive(ArchiveKind.ZIP, dicom(2)))
    with file, pytest.raises(DigestMismatch):
        file.read(0, 4)


def test_an_outage_of_the_store_costs_no_attempt(desk: Desk) -> None:
    submission_id = desk.submit(dicom(1))
    desk.receive(s3_endpoint_url="http://127.0.0.1:1", retry_backoff_s=3600)
    (file,) = desk.files(submission_id)
    assert (file.state, file.attempt, file.code) == ("arrived", 0, "object_store_unavailable")
    desk.set_file(submission_id, 0, available_at="epoch")
    desk.receive()
    assert desk.outcomes(submission_id) == ["accepted"]


def test_a_wrong_key_of_the_store_costs_no_attempt_and_is_said(desk: Desk) -> None:
    submission_id = desk.submit(dicom(1))
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            desk.receive(s3_secret_access_key=SecretStr("wrong"), retry_backoff_s=60, max_attempts=1)
            desk.set_file(submission_id, 0, available_at="epoch")
    (file,) = desk.files(submission_id)
    assert (file.state, file.attempt, file.code) == ("arrived", 0, "object_store_refused")
    assert file.reason == ObjectStoreRefused().public_detail  # which clients are shown
    assert "CARINA_S3_SECRET_ACCESS_KEY" in str(logged)
    desk.receive()
    assert desk.outcomes(submission_id) == ["accepted"]


def test_files_of_a_silent_worker_are_tried_again_until_attempts_are_used_up(desk: Desk, hints: Hints) -> None:
    submission_id = desk.submit(dicom(1))
    for attempt in (1, 2):
        with desk.database.begin() as session:
            (claim,) = claim_files(session, "gone", limit=9, lease_s=-1)
            assert claim.attempt == attempt
            assert renew(session, [claim], lease_s=60) == 0
            assert not finish_file(session, claim, FileState.UNPACKED)
        sweep(desk.settings.model_copy(update={"max_attempts": 2}), desk.database, hints, "beat")
    assert desk.outcomes(submission_id) == ["failed:worker_lost"]
    assert desk.keys("incoming/") == [incoming_key(submission_id, 0)]  # so that a retry needs no upload


def test_urgent_files_come_first_and_nobody_waits_for_another(desk: Desk) -> None:
    slow, urgent = desk.submit(dicom(1), dicom(2), priority=2), desk.submit(dicom(3), priority=9)
    with desk.database.begin() as one, desk.database.begin() as two:
        first = claim_files(one, "one", limit=2, lease_s=60)
        second = claim_files(two, "two", limit=2, lease_s=60)
    assert [(claim.submission_id, claim.number) for claim in first + second] == [(urgent, 0), (slow, 0), (slow, 1)]


# --- from a bucket ---------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(settings: Settings) -> Incoming:
    """Another bucket."""
    other = Incoming(settings.model_copy(update={"s3_bucket": f"{settings.s3_bucket}-pacs"}))
    other.ensure_bucket()
    return other


def test_what_lies_in_a_bucket_is_listed_once_and_taken_in(
    desk: Desk, bucket: Incoming, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.bucket_listing.PAGE_KEYS", 3)
    for number in range(10):
        bucket.put(f"images/{number % 2}/image {number}.dcm", dicom(number))
    bucket.put("images/all.zip", make_archive(ArchiveKind.ZIP, dicom(3), dicom(20)))
    bucket.put("others/image.dcm", dicom(30))
    submission_id = desk.import_from(f"{settings.s3_bucket}-pacs", "images/")
    workers = [threading.Thread(target=desk.receive) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    outcomes = Counter(desk.outcomes(submission_id))
    assert outcomes == {"accepted": 11, "unpacked": 1, "duplicate": 1}
    names = sorted(file.name for file in desk.files(submission_id) if file.name)
    assert names == sorted(["all.zip", *(f"image {number}.dcm" for number in range(10))])
    assert all(file.source_key is None for file in desk.files(submission_id))
    submission = desk.submission(submission_id)
    assert (submission.state, submission.listed_to, submission.file_count) == ("processing", None, 13)
    assert len(list(bucket.keys(""))) == 12
    assert desk.counts() == (11, 11)


def test_an_empty_bucket_is_done_at_once(desk: Desk, bucket: Incoming, settings: Settings) -> None:
    submission_id = desk.import_from(f"{settings.s3_bucket}-pacs", "")
    desk.receive()
    assert desk.submission(submission_id).state == "completed"


def test_no_name_is_kept_where_images_are_made_anonymous(desk: Desk, bucket: Incoming, settings: Settings) -> None:
    bucket.put("Doe^Jane.dcm", dicom(1))
    submission_id = desk.import_from(f"{settings.s3_bucket}-pacs", "")
    desk.receive(deidentify="basic")
    assert [(file.name, file.source_key) for file in desk.files(submission_id)] == [(None, None)]


def test_a_file_that_has_gone_from_its_bucket_fails_and_can_be_tried_again_from_there(
    desk: Desk, bucket: Incoming, settings: Settings
) -> None:
    bucket.put("image.dcm", dicom(1))
    submission_id = desk.import_from(f"{settings.s3_bucket}-pacs", "")
    BucketListing(settings, desk.database, desk.incoming, desk.hints, threading.Event()).run()
    bucket.delete("image.dcm")
    desk.receive()
    assert desk.outcomes(submission_id) == ["failed:not_uploaded"]
    assert desk.files(submission_id)[0].source_key == "image.dcm"
