"""Whole folders from the typed client: every file is sent once, whatever comes between."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from api.app import create_app
from api.client import Carina, Journal, Progress, RequestRefused
from api.client import sending as sending_module
from api.client.journal import LocalFile, SubmissionUnderWay
from api.contract.submissions import AnnouncedFile, Upload
from api.http.services import NAME
from shared.database import Database
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import Submission, SubmissionFile
from tests.integration.conftest import Keys, png
from tests.integration.submitting import Counting, Desk
from tests.waiting import DEADLINE_S


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    """Clients upload straight to the object store."""
    return environ | {"CARINA_DIRECT_UPLOADS": "true"}


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    app = create_app(settings)
    yield app
    app.extensions[NAME].installation.close()


@pytest.fixture
def client(app: Flask, keys: Keys) -> Iterator[Counting]:
    with Counting(app, keys.both) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve files below a folder, of which two have the same bytes and one is no image."""
    for number in range(10):
        place = tmp_path / "films" / f"{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(png(number))
    (tmp_path / "films" / "twin.png").write_bytes(png(0))
    (tmp_path / "films" / "note.txt").write_text("no image")
    return tmp_path / "films"


@pytest.fixture
def desk(settings: Settings, database: Database, hints: Hints) -> Desk:
    return Desk(settings, database, hints)


def outcomes(client: Carina, submission_id) -> list[str]:
    return sorted(row.outcome for row in client.manifest(submission_id))


def test_a_folder_is_sent_taken_in_and_accounted_for(
    client: Counting, folder: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending_module, "PAGE_FILES", 5)
    heard: list[Progress] = []
    submission = client.submit_all([folder, folder / "note.txt"], priority=8, on_progress=heard.append)
    assert (submission.state, submission.priority, submission.file_count) == ("processing", 8, 12)
    assert submission.counts.arrived == 12
    bytes_in_all = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert heard[-1] == Progress(12, bytes_in_all)
    assert len(client.put) == 12
    desk.receive()
    accepted = ["accepted"] * 10
    assert outcomes(client, submission.id) == [*accepted, "duplicate", "rejected:unsupported_file_type"]
    assert client.submission(submission.id).codes == {"unsupported_file_type": 1}
    assert [one.id for one in client.submissions()] == [submission.id]
    assert {row.name for row in client.manifest(submission.id)} == {""}, "a file's name may say who the patient is"

    again = client.submit_all([folder], names=True)
    assert again.counts.duplicate == 11
    assert len(client.put) == 13, "what is known is not sent again"
    assert "note.txt" in {row.name for row in client.manifest(again.id)}
    assert client.cancel_submission(again.id).state == "cancelled"


@pytest.mark.parametrize("stop_after", [0, 7])
def test_what_was_interrupted_goes_on_and_sends_nothing_twice(
    client: Counting, folder: Path, tmp_path: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending_module, "PAGE_FILES", 5)
    client.stop_after = stop_after
    with Journal(tmp_path / "journal") as journal, pytest.raises(KeyboardInterrupt):
        client.submit_all([folder], threads=1, journal=journal)
    sent = list(client.put)
    assert len(sent) == stop_after
    client.stop_after = 10**9
    with Journal(tmp_path / "journal") as journal:
        begun = journal.submission_id
        submission = client.submit_all([folder], journal=journal)
        assert submission.id == begun
        assert client.submit_all([folder], journal=journal).id == begun, "what is sent is only asked about"
        journal.remove()
    assert len({path for path, _ in client.put}) == len(client.put) == 12
    assert submission.counts.arrived == submission.file_count == 12
    assert list(tmp_path.glob("journal*")) == []


def test_what_stops_an_upload_is_told_also_while_the_next_files_are_hashed(
    client: Counting, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hashing is told to stop, which is not the reason."""
    monkeypatch.setattr(sending_module, "FIRST_FILES", 1)
    client.stop_after = 0
    hash_file, is_first = sending_module.Sender._hash, iter([True])

    def hash_late(self, file: LocalFile) -> str | OSError:
        if not next(is_first, False):
            self._stopped.wait(DEADLINE_S)
        return hash_file(self, file)

    monkeypatch.setattr(sending_module.Sender, "_hash", hash_late)
    with Journal() as journal, pytest.raises(KeyboardInterrupt):
        client.submit_all([folder], threads=1, journal=journal)


def test_an_announcement_whose_answer_was_lost_is_not_made_twice(
    client: Counting, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = iter([True, True])
    post = Counting._post

    def lose(self, answer, path, *arguments, **named):
        answered = post(self, answer, path, *arguments, **named)
        if path.endswith(("/submissions", "/files")) and next(lost, False):
            raise KeyboardInterrupt
        return answered

    monkeypatch.setattr(Counting, "_post", lose)
    with Journal() as journal:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                client.submit_all([folder], journal=journal)
        submission = client.submit_all([folder], journal=journal)
    assert submission.file_count == submission.counts.arrived == 12
    assert len(client.submissions()) == 1


def test_a_large_file_goes_in_parts_and_on_from_the_last_of_them(client: Counting, tmp_path: Path, desk: Desk) -> None:
    image = tmp_path / "large.png"
    image.write_bytes(png() + bytes(65 * 1024**2))
    client.stop_after = 1
    with Journal(tmp_path / "journal") as journal:
        with pytest.raises(KeyboardInterrupt):
            client.submit_all([image], threads=1, journal=journal)
        client.stop_after = 2
        submission = client.submit_all([image], journal=journal)
    parts = sorted(path.rpartition("#")[2] for path, _ in client.put)
    assert parts == ["1", "2"]
    assert sum(size for _, size in client.put) == image.stat().st_size
    desk.receive()
    (row,) = client.manifest(submission.id)
    assert row.outcome == "accepted", row.reason
    assert row.sha256 == hashlib.sha256(image.read_bytes()).hexdigest()


def test_bytes_go_through_the_api_where_it_says_so(keys: Keys, settings: Settings, folder: Path) -> None:
    app = create_app(settings.model_copy(update={"direct_uploads": False}))
    with Counting(app, keys.both) as client:
        submission = client.submit_all([folder])
        found = outcomes(client, submission.id)
    app.extensions[NAME].installation.close()
    assert all(path.startswith("/v1/submissions/") for path, _ in client.put)
    rejected = ["rejected:unsupported_file_type"]
    assert found == ["accepted"] * 10 + ["duplicate"] + rejected


def test_a_url_that_is_too_old_is_asked_for_anew(client: Counting, folder: Path) -> None:
    path = folder / "twin.png"
    made = client.create_submission().submission
    (upload,) = client.announce(made.id, [announced(path)])
    old = upload.model_copy(update={"url": str(upload.url).replace("X-Amz-Signature=", "X-Amz-Signature=0")})
    client.upload(made.id, old, path)
    assert len(client.put) == 2
    assert client.arrived(made.id, [upload.number]).counts.arrived == 1
    # A refusal that is not for its age leaves the file to the API.
    elsewhere = Upload(number=0, state="expected", url=old.url)
    (second,) = client.announce(made.id, [announced(folder / "note.txt")])
    assert second.number == 1
    client._get = lambda *_, **__: type("Page", (), {"uploads": [elsewhere], "next": None})
    client.upload(made.id, elsewhere, path)
    assert client.put[-1][0] == f"/v1/submissions/{made.id}/files/0/content"


def announced(path: Path) -> AnnouncedFile:
    content = path.read_bytes()
    return AnnouncedFile(byte_count=len(content), sha256=hashlib.sha256(content).hexdigest())


def test_files_that_cannot_be_read_are_told_of_and_the_others_are_sent(client: Counting, folder: Path) -> None:
    (folder / "gone.png").symlink_to(folder / "nowhere")
    with pytest.raises(FileNotFoundError):
        client.submit_all([folder])
    heard: list[tuple[str, str]] = []

    def change(progress: Progress) -> None:
        if progress.files == 2:
            (folder / "twin.png").write_bytes(png(99))

    with Journal() as journal:
        submission = client.submit_all(
            [folder],
            threads=1,
            journal=journal,
            on_progress=change,
            on_unreadable=lambda path, error: heard.append((path.name, type(error).__name__)),
        )
        assert [file.path.name for file in journal.unreadable()] == ["gone.png"]
    assert heard == [("gone.png", "FileNotFoundError"), ("twin.png", "UnreadableFile")]
    assert submission.file_count == 12


def test_a_submission_that_was_cancelled_meanwhile_begins_anew(client: Counting, folder: Path) -> None:
    client.stop_after = 3
    with Journal() as journal:
        with pytest.raises(KeyboardInterrupt):
            client.submit_all([folder], threads=1, journal=journal)
        first = journal.submission_id
        assert first
        client.cancel_submission(first)
        client.stop_after = 10**9
        submission = client.submit_all([folder], journal=journal)
    assert submission.id != first
    assert submission.counts.arrived == 12


def test_what_did_not_arrive_whole_is_tried_again_and_nothing_else(client: Counting, folder: Path, desk: Desk) -> None:
    paths = sorted((folder / "0").iterdir())
    made = client.create_submission().submission
    uploads = client.announce(made.id, [announced(path) for path in paths])
    client.upload(made.id, uploads[0], paths[0])
    client.complete(made.id)
    desk.receive()
    missing = len(paths) - 1
    assert client.submission(made.id).codes == {"not_uploaded": missing}
    answer = client.retry_submission(made.id)
    assert (answer.retried, answer.to_upload) == (0, missing)
    assert client.resend(made.id, [folder]) == missing
    desk.receive()
    assert outcomes(client, made.id) == ["accepted"] * len(paths)
    assert len(client.put) == len(paths)


def test_a_journal_has_one_owner(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        with pytest.raises(SubmissionUnderWay):
            Journal(tmp_path / "journal")
        file = LocalFile(tmp_path / "image", 1, 2, "ab")
        journal.add_page("key", [file])
        assert not journal.knows(file), "it was not announced for sure"
    with Journal(tmp_path / "journal") as journal:
        ((key, files),) = journal.pages_without_numbers()
        assert (key, files) == ("key", [file])
        journal.number_page(key, [7])
        assert journal.knows(file)
        assert journal.file(7) == LocalFile(tmp_path / "image", 1, 2, "ab", "", 7, "announced")


def test_a_key_that_may_only_submit_can_go_on(app: Flask, keys: Keys, folder: Path, database: Database) -> None:
    with Counting(app, keys.submit, stop_after=2) as client, Journal() as journal:
        with pytest.raises(KeyboardInterrupt):
            client.submit_all([folder], threads=1, journal=journal)
        client.stop_after = 10**9
        client.submit_all([folder], journal=journal)
        with pytest.raises(RequestRefused):
            next(client.manifest(journal.submission_id))
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Submission)) == 1
        assert session.scalar(sa.select(sa.func.count()).select_from(SubmissionFile)) == 12
