"""Planted names, numbers and dates go in every way, whole and broken: they come out nowhere but in the originals."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
import PIL.PngImagePlugin
import psycopg
import pydicom
import pytest
import redis
import sqlalchemy as sa
from psycopg import sql
from pydicom.uid import BasicTextSRStorage, JPEG2000Lossless
from pynetdicom import AE, build_context

from shared.access.keys import create_key
from shared.database import Database
from shared.object_store import ObjectStore
from shared.settings import Settings
from shared.tables import ApiKey, Image, Job, Webhook
from shared.vocabulary.states import JobState, Scope
from tests.planted import IMAGE, TRACES, make_planted
from tests.requirements import REPOSITORY
from tests.synthetic_dicom import make_dicom
from tests.waiting import DEADLINE_S, wait_for

#: A UID is no patient's data where files are kept as they are; everywhere else these files share none.
UID = "1.2.826.0.1.{}"
FILE_NAME = "PLANTED^NAME 19370704.dcm"


def planted(number: int, **elements: object) -> bytes:
    uids = {"SOPInstanceUID": UID.format(number), "StudyInstanceUID": UID.format(1000 + number)}
    return make_planted(**uids, SeriesInstanceUID=UID.format(2000 + number), **elements)


def explicit(tag: bytes, vr: bytes, value: bytes) -> bytes:
    return tag + vr + len(value).to_bytes(2, "little") + value


def spoilt(number: int, element: bytes) -> bytes:
    """A planted file with one more element, just before the study's UID."""
    data = planted(number)
    place = data.rindex(b"\x20\x00\x0d\x00UI")
    return data[:place] + element + data[place:]


def pictures() -> list[bytes]:
    files = []
    exif = PIL.Image.Exif()
    exif[0x010E] = "PLANTED"
    for side in (70, 80):
        text = PIL.PngImagePlugin.PngInfo()
        text.add_text("Patient", f"PLANTED {side}")
        for kind, options in (("PNG", {"pnginfo": text}), ("JPEG", {"comment": b"PLANTED", "exif": exif})):
            buffer = BytesIO()
            PIL.Image.new("L", (side, 90), side).save(buffer, kind, **options)
            files.append(buffer.getvalue())
    return files


def files_of(way: int) -> list[bytes]:
    """Whole and broken files that no other way in gets."""
    first = 100 * way
    whole = planted(first + 1)
    return [
        whole,
        planted(first + 2, BurnedInAnnotation="YES"),
        whole[: len(whole) // 2],
        planted(first + 3)[:-9000],
        planted(first + 4, Rows=None),
        planted(first + 5, NumberOfFrames=7),
        spoilt(first + 6, explicit(b"\x10\x00\x10\x00", b"US", b"PLANTED!")),
        spoilt(first + 7, explicit(b"\x28\x00\x10\x00", b"LO", b"PLANTED!")),
        spoilt(first + 8, explicit(b"\x28\x00\x10\x00", b"IS", b"PLANTED!")),
        spoilt(first + 9, explicit(b"\x08\x00\x60\x00", b"CS", b"PLANTED^" * 900)),
        spoilt(first + 10, explicit(b"\x28\x00\x50\x10", b"DS", b"PLANTED!")),
        b"PLANTED^NAME 19370704" * 20,
    ]


def undecodable(number: int) -> bytes:
    """An image whose frame is no JPEG 2000 codestream."""
    file = pydicom.dcmread(BytesIO(make_dicom(IMAGE, syntax=JPEG2000Lossless, frame=b"no codestream" * 50)))
    file.SOPInstanceUID, file.StudyInstanceUID = UID.format(number), UID.format(1000 + number)
    file.PatientName = "PLANTED"
    buffer = BytesIO()
    file.save_as(buffer)
    return buffer.getvalue()


class Place:
    """The real processes on this test's servers, and what they have said."""

    def __init__(self, environ: dict[str, str], folder: Path, stack: ExitStack) -> None:
        self._environ, self._folder, self.stack = environ, folder, stack

    def start(self, *words: str) -> None:
        log = self.stack.enter_context((self._folder / f"{'-'.join(words)}.log").open("wb"))
        command = [sys.executable, "-m", "deploy.cli", *words]
        env = os.environ | self._environ | {"CARINA_STATE_FILE": str(self._folder / f"{'-'.join(words)}.ready")}
        process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log)
        self.stack.callback(process.wait, timeout=DEADLINE_S)
        self.stack.callback(process.terminate)

    def logs(self) -> bytes:
        return b"".join(path.read_bytes() for path in self._folder.glob("*.log"))


@contextmanager
def running(environ: dict[str, str], folder: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        place = Place(environ, folder, stack)
        parts = ["api", "dicom-listener", "worker prepare"]
        if environ["CARINA_DEIDENTIFY"] == "off":  # else uploads go through the API, and nothing is left for intake
            parts.append("worker intake")
        for part in parts:
            place.start(*part.split())
        for part in parts[1:]:
            wait_for((folder / f"{part.replace(' ', '-')}.ready").exists)
        yield place


def unnamed(answer: Any) -> Any:
    """An answer without the names that the client gave its files."""
    if isinstance(answer, dict):
        return {key: unnamed(value) for key, value in answer.items() if key != "name"}
    return [unnamed(value) for value in answer] if isinstance(answer, list) else answer


class Sender:
    """Sends by HTTP, and keeps what it is answered."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=DEADLINE_S)
        #: Every answer, but for the names that files were sent under.
        self.answers: list[bytes] = []
        self.codes: set[str] = set()

    def keep(self, answer: httpx.Response) -> httpx.Response:
        assert answer.status_code < 500, answer.text
        text = answer.text
        if answer.headers.get("Content-Type", "").startswith("application/json"):
            text = json.dumps(unnamed(answer.json()))
            for row in answer.json().get("files", ()):
                self.codes.add(row.get("code") or row.get("outcome", "").partition(":")[2])
        self.answers.append(text.encode() + repr(dict(answer.headers)).encode())
        return answer

    def send_forms(self, files: list[bytes]) -> None:
        for body in ([("files", (FILE_NAME, data)) for data in files], [("PLANTED", (FILE_NAME, files[0]))]):
            for _ in range(2):
                self.keep(self.http.post("/v1/studies", files=body, headers={"Idempotency-Key": f"key-{len(body)}"}))
        self.keep(self.http.post("/v1/studies", content=files[0], headers={"Content-Type": "application/dicom"}))

    def send_dicomweb(self, files: list[bytes]) -> None:
        for data in files:
            body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b--"
            kind = 'multipart/related; type="application/dicom"; boundary=b'
            for path in ("/dicom-web/studies", "/dicom-web/studies/1.2.3"):
                self.keep(self.http.post(path, content=body, headers={"Content-Type": kind}))
        self.http.get("/dicom-web/studies", params={"PatientName": "PLANTED*", "PatientBirthDate": "19370704"})

    def send_submission(self, files: list[bytes]) -> None:
        announced = [
            {"name": FILE_NAME, "byte_count": len(data), "sha256": hashlib.sha256(data).hexdigest()} for data in files
        ]
        created = self.keep(self.http.post("/v1/submissions", json={"files": announced})).json()
        path = f"/v1/submissions/{created['submission']['id']}"
        for upload, data in zip(created["uploads"], files, strict=True):
            if upload["through_api"]:
                self.keep(self.http.put(upload["url"], content=data))
            else:
                httpx.put(upload["url"], content=data, headers=upload["headers"]).raise_for_status()
        self.keep(self.http.post(f"{path}/complete"))
        wait_for(lambda: not {"expected", "arrived"} & {row["outcome"] for row in self.manifest(path)})
        self.keep(self.http.get(f"{path}/manifest"))
        self.keep(self.http.post(f"{path}/cancel"))

    def manifest(self, path: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.http.get(f"{path}/manifest").json()["files"]
        return rows


def send_dicom(port: int, files: list[bytes]) -> list[str]:
    """Send what pynetdicom can read of these files; return the answers' comments."""
    comments = []
    for data in files:
        try:
            file = pydicom.dcmread(BytesIO(data))
            context = build_context(file.SOPClassUID, file.file_meta.TransferSyntaxUID)
        except Exception:  # noqa: BLE001 - no sender would send it
            continue
        ae = AE("SENDER")
        association = ae.associate("127.0.0.1", port, contexts=[context], ae_title="CARINA")
        assert association.is_established
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = association.send_c_store(file)
            comments.append(f"{answer.get('Status', 0):04X} {answer.get('ErrorComment', '')}")
        except Exception:  # noqa: BLE001 - the sender's own encoder refuses it
            pass
        finally:
            association.release()
    return comments


def dump(environ: dict[str, str], *, without: set[str]) -> bytes:
    """Every row of every table as text, but for these columns, and all that Redis holds."""
    said = []
    with psycopg.connect(environ["CARINA_DATABASE_URL"]) as connection:
        found = connection.execute(
            "SELECT table_name, array_agg(column_name::text) FROM information_schema.columns"
            " WHERE table_schema = 'public' GROUP BY 1"
        )
        for table, columns in found.fetchall():
            chosen = [sql.Identifier(name) for name in columns if f"{table}.{name}" not in without]
            copy = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(
                sql.SQL(", ").join(chosen), sql.Identifier(table)
            )
            with connection.cursor().copy(copy) as rows:
                said += [bytes(row) for row in rows]
    server = redis.Redis.from_url(environ["CARINA_REDIS_URL"])
    said += [part for key in server.scan_iter() for part in (key, server.dump(key) or b"")]
    server.close()
    return b"\n".join(said)


@pytest.mark.parametrize("deidentify", ["off", "basic"])
def test_nothing_of_a_patient_comes_out(
    deidentify: str, settings: Settings, environ: dict[str, str], database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    with database.begin() as session:
        key = create_key(session, project_name="default", name="planter", scopes=[Scope.SUBMIT, Scope.READ])
        owner = session.scalars(sa.select(ApiKey)).one()
        events = ["job.finished", "submission.completed"]
        hook = {"url": "http://127.0.0.1:9/", "secret": "whsec_AAAA", "events": events}
        session.add(Webhook(project_id=owner.project_id, api_key_id=owner.id, **hook))
    api_port, dicom_port = free_ports(2)
    changed = environ | {
        "CARINA_DIRECT_UPLOADS": "true",
        "CARINA_DEIDENTIFY": deidentify,
        "CARINA_LOG_LEVEL": "debug",
        "CARINA_API_PORT": str(api_port),
        "CARINA_DICOM_PORT": str(dicom_port),
        "CARINA_DICOM_ALLOWED_AES": "SENDER",
        "CARINA_SWEEP_INTERVAL_S": "1",
    }
    with running(changed, tmp_path) as place:
        sender = Sender(f"http://127.0.0.1:{api_port}", key)
        place.stack.callback(sender.http.close)
        wait_for(lambda: answers(sender))
        first, second, third, fourth = pictures()
        sender.send_forms([*files_of(1), undecodable(90), first, second, third[:-20]])
        sender.send_dicomweb(files_of(2))
        sender.send_submission([*files_of(3), undecodable(91), third, fourth])
        comments = send_dicom(dicom_port, [*files_of(4), planted(499, SOPClassUID=BasicTextSRStorage), undecodable(92)])
        sender.answers += [comment.encode() for comment in comments]
        wait_for(lambda: not unprepared(database))
        metrics = sender.http.get("/metrics").content

    # What was meant to go well went well, and what was meant to fail failed, in every way in.
    assert {"multi_frame", "not_an_image", "unsupported_file_type"} <= sender.codes
    assert any(comment.startswith("0000") for comment in comments)
    assert any(comment.startswith("C000 multi_frame") for comment in comments)
    with database.begin() as session:
        images = session.scalars(sa.select(Image)).all()
        kept_as_sent = sum((image.study_id is not None) for image in images)
        burned_in = sum(image.burned_in_annotation is True for image in images)
        rejected = session.scalars(sa.select(Job.code).where(Job.state == JobState.REJECTED)).all()
    assert kept_as_sent >= 12
    assert burned_in == 4
    # De-identification takes pixel data apart, so that it finds this before anything is stored.
    assert "undecodable_pixel_data" in (rejected if deidentify == "off" else sender.codes)

    # What a client calls a file is its own word for it: told back to that client, and kept for no other reason.
    named = set() if deidentify == "basic" else {"submission_file.name", "idempotency_key.body"}
    renditions = b"".join(store.read(object_key) for object_key in store.keys("renditions/"))
    sinks = {
        "logs": place.logs(),
        "answers": b"\n".join(sender.answers),
        "metrics": metrics,
        "keys": "\n".join(store.keys("")).encode(),
        "renditions": renditions,
        "database": dump(environ, without=named),
    }
    if deidentify == "basic":
        sinks["originals"] = b"".join(store.read(object_key) for object_key in store.keys(""))
    for name, content in sinks.items():
        assert content, name
        found = TRACES.search(content)
        assert not found, (name, content[max(0, found.start() - 200) : found.end() + 100])


def unprepared(database: Database) -> int:
    with database.begin() as session:
        waiting = Job.state.in_([JobState.QUEUED, JobState.PREPARING])
        return session.scalar(sa.select(sa.func.count()).where(waiting)) or 0


def answers(sender: Sender) -> bool:
    try:
        return sender.http.get("/healthz").is_success
    except httpx.TransportError:
        return False


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
