"""The DICOM listener on the real servers, with DCMTK, Orthanc and pynetdicom as senders."""

import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pynetdicom._config
import pytest
import sqlalchemy as sa
from pydicom.uid import (
    BasicTextSRStorage,
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    UltrasoundImageStorage,
)
from pynetdicom import AE, build_context

from api.dicom.listener import Listener
from api.dicom.storage import ListenerMisconfigured
from shared.access.keys import Allowance, create_key, prefix_of
from shared.database import Database
from shared.errors import ObjectStoreUnavailable
from shared.object_store import ObjectStore, original_key
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import AuditEvent, Image, Job, Project, Study
from shared.vocabulary.states import Scope, WorkerKind
from tests.certificates import Authority
from tests.integration.workshop import dicom, grey_image
from tests.ports import free_port
from tests.requirements import REPOSITORY, end_without, needs
from tests.synthetic_dicom import make_dicom, make_image
from tests.waiting import DEADLINE_S, wait_for

pytestmark = pytest.mark.usefixtures("senders_close")


@pytest.fixture
def ready(settings: Settings, database: Database) -> Settings:
    """Settings under which the listener may start: a project, and a sender that may send."""
    with database.begin() as session:
        session.add(Project(name="default"))
    return settings.model_copy(update={"dicom_port": 0, "dicom_allowed_aes": "SENDER, ORTHANC"})


@pytest.fixture
def listener(ready: Settings) -> Iterator[Listener]:
    with Listener(ready) as running:
        yield running


@contextmanager
def association(port: int, *contexts: Any, calling: str = "SENDER", called: str = "CARINA", **kwargs: Any):
    """A pynetdicom sender's association, released at the end."""
    ae = AE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = DEADLINE_S
    made = ae.associate("127.0.0.1", port, contexts=list(contexts) or [context_of(dicom(0))], ae_title=called, **kwargs)
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


def context_of(data: bytes) -> Any:
    file = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
    return build_context(file.SOPClassUID, file.file_meta.TransferSyntaxUID)


def send(port: int, *files: bytes, **kwargs: Any) -> list[Any]:
    """Send files through one association; return the answers."""
    contexts = {(c.abstract_syntax, c.transfer_syntax[0]): c for c in map(context_of, files)}
    with association(port, *contexts.values(), **kwargs) as made:
        assert made.is_established
        return [made.send_c_store(pydicom.dcmread(BytesIO(data))) for data in files]


def rows(database: Database, table: Any) -> list[Any]:
    with database.begin() as session:
        found = list(session.scalars(sa.select(table).order_by(table.id)))
        session.expunge_all()
        return found


# --- what is taken in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_an_object_is_durable_when_success_is_answered(
    syntax: str, listener: Listener, database: Database, store: ObjectStore
) -> None:
    data = make_dicom(grey_image(1), syntax=syntax)
    [answer] = send(listener.port, data)
    assert answer.Status == 0x0000
    [image], [job], [study] = rows(database, Image), rows(database, Job), rows(database, Study)
    assert (image.sop_instance_uid, image.transfer_syntax_uid, study.study_instance_uid) == ("1.2.3.4", syntax, "1.2.3")
    assert (job.image_id, job.state) == (image.id, "queued")
    stored = pydicom.dcmread(BytesIO(store.get(original_key(image.sha256), sha256=image.sha256)))
    assert stored.PixelData == pydicom.dcmread(BytesIO(data)).PixelData


def test_an_object_that_is_sent_again_is_a_duplicate(listener: Listener, database: Database) -> None:
    assert [answer.Status for answer in send(listener.port, dicom(1), dicom(1))] == [0, 0]
    assert [answer.Status for answer in send(listener.port, dicom(1))] == [0]
    assert len(rows(database, Job)) == 1
    audited = rows(database, AuditEvent)
    [image] = rows(database, Image)
    named = {"study_id": str(image.study_id), "image_id": str(image.id)}
    assert [event.subject for event in audited] == [
        {outcome: 1} | named for outcome in ("accepted", *["duplicate"] * 2)
    ]
    assert {(event.action, event.actor, event.remote_address) for event in audited} == {
        ("dicom.store", "ae:SENDER", "127.0.0.1")
    }


def test_workers_are_woken(listener: Listener, hints: Hints, settings: Settings) -> None:
    send(listener.port, dicom(1), dicom(2))
    wait_for(lambda: hints._redis.llen(str(WorkerKind.PREPARE)) == 1)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (make_dicom(grey_image(1), SOPClassUID=BasicTextSRStorage, Rows=None), 0xB006, "not_an_image"),
        (make_dicom(grey_image(1), StudyInstanceUID="1" * 65), 0xC000, "invalid_uid"),
        (make_dicom(grey_image(1), SOPClassUID=UltrasoundImageStorage, NumberOfFrames=2), 0xC000, "multi_frame"),
        (make_dicom(grey_image(1)[:40]), 0xC000, "image_too_small"),
    ],
)
def test_an_unfit_object_is_refused_by_its_code(
    data: bytes, status: int, code: str, listener: Listener, database: Database
) -> None:
    refused, taken = send(listener.port, data, dicom(2))
    assert (refused.Status, refused.ErrorComment) == (status, code)
    assert taken.Status == 0, "the association goes on"
    assert len(rows(database, Image)) == 1
    audited = wait_for(lambda: len(found := rows(database, AuditEvent)) == 2 and found)
    assert {code: 1} in [event.subject for event in audited]
    assert str(rows(database, Image)[0].id) in [event.subject.get("image_id") for event in audited]


def test_an_object_whose_audit_row_cannot_be_written_is_not_stored(listener: Listener, database: Database) -> None:
    with database.begin() as session:
        session.execute(sa.text("ALTER TABLE audit_event ADD CONSTRAINT closed CHECK (false) NOT VALID"))
    [answer] = send(listener.port, dicom(1))
    assert (answer.Status, answer.ErrorComment) == (0xA700, "database_unavailable")
    assert not rows(database, Image)


def test_an_object_that_is_not_what_the_message_says_is_refused(
    listener: Listener, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this way of sending the message repeats the file meta's identifiers.
    monkeypatch.setattr(pynetdicom._config, "STORE_SEND_CHUNKED_DATASET", True)
    (path := tmp_path / "other.dcm").write_bytes(dicom(1).replace(b"1.2.1\0", b"1.2.9\0", 1))
    with association(listener.port) as made:
        answer = made.send_c_store(path)
    assert (answer.Status, answer.ErrorComment) == (0xA900, "identifier_mismatch")
    assert not rows(database, Image)


def test_files_count_against_the_quota_of_the_key_that_is_set(ready: Settings, database: Database) -> None:
    with database.begin() as session:
        allowance = Allowance(files_per_day=1)
        key = create_key(session, project_name="default", name="", scopes=[Scope.SUBMIT], allowance=allowance)
    with Listener(ready.model_copy(update={"dicom_key": prefix_of(key)})) as limited:
        first, second = send(limited.port, dicom(1), dicom(2))
        assert (first.Status, second.Status, second.ErrorComment) == (0x0000, 0xA700, "quota_exceeded")
    assert len(rows(database, Image)) == 1
    with pytest.raises(ListenerMisconfigured, match="CARINA_DICOM_KEY"):
        Listener(ready.model_copy(update={"dicom_key": "nobody"}))


def test_an_outage_asks_the_sender_to_try_again(
    listener: Listener, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: object) -> None:
        raise ObjectStoreUnavailable

    with monkeypatch.context() as outage:
        outage.setattr(listener.storage.store, "put", put)
        [answer] = send(listener.port, dicom(1))
        assert (answer.Status, answer.ErrorComment) == (0xA700, "object_store_unavailable")
        assert not rows(database, Image)
    [answer] = send(listener.port, dicom(1))
    assert answer.Status == 0
    assert len(rows(database, Image)) == 1


def test_an_object_that_never_ends_is_cut_off(ready: Settings, database: Database) -> None:
    endless = make_dicom(make_image(1000, 1000))
    with Listener(ready.model_copy(update={"max_upload_bytes": 200_000})) as listener:
        with association(listener.port) as made:
            assert not made.send_c_store(pydicom.dcmread(BytesIO(endless))), "no answer but the end"
        wait_for(lambda: [event.subject for event in rows(database, AuditEvent)] == [{"image_too_large": 1}])
    assert not rows(database, Image)


def test_a_message_of_four_gigabytes_is_not_waited_for(listener: Listener) -> None:
    """Its sender has not even asked for an association."""
    with socket.create_connection(("127.0.0.1", listener.port), timeout=DEADLINE_S) as stranger:
        stranger.sendall(struct.pack(">BBI", 1, 0, 0xFFFFFFFF))
        assert stranger.recv(1) == b""


def test_commands_that_never_end_are_cut_off(listener: Listener, database: Database) -> None:
    command = bytes(100_000)
    with association(listener.port) as made:
        context = made.accepted_contexts[0].context_id
        for _ in range(3):
            value = struct.pack(">IBB", len(command) + 2, context, 1) + command
            made.dul.socket.send(struct.pack(">BBI", 4, 0, len(value)) + value)
        wait_for(lambda: made.is_aborted)
    wait_for(lambda: [event.subject for event in rows(database, AuditEvent)] == [{"image_too_large": 1}])


# --- who may send ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", "CARINA"), ("SENDER", "OTHER")])
def test_a_title_that_is_not_listed_gets_no_association(calling: str, called: str, listener: Listener) -> None:
    with association(listener.port, calling=calling, called=called) as made:
        assert made.is_rejected


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dicom_allowed_aes": " , "}, "CARINA_DICOM_ALLOWED_AES"),
        ({"dicom_project": "elsewhere"}, "no project 'elsewhere'"),
        ({"dicom_tls_certificate": "/nowhere.pem"}, "TLS"),
        ({"dicom_tls_ca": "/nowhere.pem"}, "CARINA_DICOM_TLS_CERTIFICATE"),
    ],
)
def test_it_does_not_start_where_it_cannot_serve(changed: dict[str, str], said: str, ready: Settings) -> None:
    with pytest.raises(ListenerMisconfigured, match=said):
        Listener(ready.model_copy(update=changed))


def test_a_port_that_is_taken_is_named(ready: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenerMisconfigured, match=str(port)):
            Listener(ready.model_copy(update={"dicom_port": port}))


def test_silent_and_stalled_peers_hold_up_nobody_and_are_dropped(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.dicom.admission.ASSOCIATE_S", 1)
    with Listener(ready) as listener, socket.socket() as silent, socket.socket() as stalled:
        for peer in (silent, stalled):
            peer.settimeout(DEADLINE_S)
            peer.connect(("127.0.0.1", listener.port))
        stalled.sendall(b"\x01\x00\x00\x00\x10\x00half an association request")
        [answer] = send(listener.port, dicom(1))
        assert answer.Status == 0
        assert silent.recv(1) == stalled.recv(1) == b""
        wait_for(lambda: not listener.admission.pending)


def test_there_are_no_more_associations_than_are_allowed(ready: Settings) -> None:
    with Listener(ready.model_copy(update={"dicom_associations": 1})) as listener:
        with association(listener.port) as first, association(listener.port) as second:
            assert first.is_established
            assert second.is_rejected
        wait_for(lambda: not listener.peers)
        [answer] = send(listener.port, dicom(1))
        assert answer.Status == 0


def test_an_original_is_de_identified_before_it_is_stored(
    ready: Settings, database: Database, store: ObjectStore
) -> None:
    data = dicom(1)
    with Listener(ready.model_copy(update={"deidentify": "basic"})) as listener:
        assert [answer.Status for answer in send(listener.port, data, data)] == [0, 0]
    [image], [study] = rows(database, Image), rows(database, Study)
    stored = pydicom.dcmread(BytesIO(store.get(original_key(image.sha256), sha256=image.sha256)))
    assert (stored.PatientName, stored.PatientIdentityRemoved) == ("", "YES")
    assert stored.StudyInstanceUID == study.study_instance_uid != "1.3.1"
    assert stored.SOPInstanceUID == image.sop_instance_uid != "1.2.1"


# --- DCMTK -----------------------------------------------------------------------------------------------------------


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)


def test_dcmtk_echoes_and_stores(listener: Listener, database: Database, tmp_path: Path) -> None:
    names = []
    for number in range(8):
        (path := tmp_path / f"{number}.dcm").write_bytes(dicom(number))
        names.append(str(path))
    ends = ["-aet", "SENDER", "-aec", "CARINA", "127.0.0.1", str(listener.port)]
    assert run(needs("echoscu"), *ends).returncode == 0
    assert run(needs("echoscu"), *ends[:1], "STRANGER", *ends[2:]).returncode != 0
    said = run(needs("storescu"), "-v", *ends, *names)
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("(Success)") + said.stdout.count("(Success)") == 8
    assert len(rows(database, Image)) == 8


def test_dcmtk_goes_on_after_what_holds_no_image(listener: Listener, database: Database, tmp_path: Path) -> None:
    others = [EncapsulatedPDFStorage, ComprehensiveSRStorage, GrayscaleSoftcopyPresentationStateStorage]
    files = [dicom(0), *(_without_image(kind) for kind in others), dicom(1)]
    names = []
    for number, data in enumerate(files):
        (path := tmp_path / f"{number}.dcm").write_bytes(data)
        names.append(str(path))
    ends = ["-aet", "SENDER", "-aec", "CARINA", "127.0.0.1", str(listener.port)]
    said = run(needs("storescu"), "-v", "-R", *ends, *names)
    assert said.returncode == 0, said.stderr
    assert len(rows(database, Image)) == 2
    wait_for(lambda: {"not_an_image": 3} in [event.subject for event in rows(database, AuditEvent)])


def _without_image(sop_class: str) -> bytes:
    dataset = pydicom.dcmread(BytesIO(make_dicom(grey_image(9), SOPClassUID=sop_class, SOPInstanceUID="1.2.9.9")))
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(dataset, keyword)
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_tls_with_certificates_on_both_sides(ready: Settings, database: Database, tmp_path: Path) -> None:
    (tmp_path / "image.dcm").write_bytes(dicom(1))
    authority = Authority(tmp_path / "certificates")
    own, sender = authority.sign(called="listener"), authority.sign(called="sender")
    tls = ready.model_copy(
        update={
            "dicom_tls_certificate": str(own.path),
            "dicom_tls_key": str(own.key),
            "dicom_tls_ca": str(authority.certificate),
        }
    )
    with Listener(tls) as listener, socket.socket() as silent:
        silent.connect(("127.0.0.1", listener.port))  # says nothing of TLS, and holds up nobody
        context = ssl.create_default_context(cafile=str(authority.certificate))
        with association(listener.port, tls_args=(context, "localhost")) as made:
            assert not made.is_established, "without a certificate nobody gets in"
        context.load_cert_chain(sender.path, sender.key)
        [answer] = send(listener.port, dicom(2), tls_args=(context, "localhost"))
        assert answer.Status == 0
        ends = ["-aet", "SENDER", "-aec", "CARINA", "127.0.0.1", str(listener.port), str(tmp_path / "image.dcm")]
        storescu = needs("storescu")
        assert run(storescu, *ends).returncode != 0, "in clear nobody gets in"
        if "+tls" not in run(storescu, "--help").stdout:
            end_without("storescu with TLS", "apt install dcmtk")
        said = run(storescu, "+tls", str(sender.key), str(sender.path), "+cf", str(authority.certificate), *ends)
        assert said.returncode == 0, said.stderr
    assert len(rows(database, Image)) == 2


# --- Orthanc ---------------------------------------------------------------------------------------------------------


def test_orthanc_sends_a_study(listener: Listener, database: Database, tmp_path: Path) -> None:
    orthanc, http_port = needs("Orthanc"), free_port()
    configuration = {
        "StorageDirectory": str(tmp_path / "db"),
        "IndexDirectory": str(tmp_path / "db"),
        "DicomAet": "ORTHANC",
        "DicomServerEnabled": False,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
        "DicomModalities": {"carina": ["CARINA", "127.0.0.1", listener.port]},
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(configuration))
    url = f"http://127.0.0.1:{http_port}"
    with (
        subprocess.Popen(
            [orthanc, str(tmp_path / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process,
        httpx.Client(base_url=url, timeout=DEADLINE_S) as http,
    ):
        try:

            def is_up() -> bool:
                try:
                    return http.get("/system").is_success
                except httpx.TransportError:
                    return False

            wait_for(is_up)
            assert http.post("/modalities/carina/echo", json={}).is_success
            images = [
                make_dicom(grey_image(n), SOPInstanceUID=f"1.2.{n}", SeriesInstanceUID="1.5", PatientID="p")
                for n in (1, 2, 3)
            ]
            ids = [http.post("/instances", content=data).json()["ID"] for data in images]
            answer = http.post("/modalities/carina/store", json={"Resources": ids, "Synchronous": True})
            assert answer.is_success, answer.text
            assert answer.json()["FailedInstancesCount"] == 0
        finally:
            process.terminate()
            process.wait(DEADLINE_S)
    assert {image.sop_instance_uid for image in rows(database, Image)} == {"1.2.1", "1.2.2", "1.2.3"}


# --- the process -----------------------------------------------------------------------------------------------------


@contextmanager
def served(environ: dict[str, str], log: Path, change: str = "") -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """The listener as a process; `change` is a statement that runs in it before it starts."""
    env = os.environ | environ | {"CARINA_DICOM_PORT": "0", "CARINA_DICOM_ALLOWED_AES": "SENDER"}
    code = f"from deploy.cli import main; {change}\nimport sys; sys.argv = ['carina', 'dicom-listener']; main()"
    with (
        log.open("ab") as stderr,
        subprocess.Popen([sys.executable, "-c", code], env=env, cwd=REPOSITORY, stderr=stderr) as process,
    ):
        try:

            def port() -> int:
                assert process.poll() is None, log.read_text()
                lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
                return next((line["port"] for line in lines[::-1] if line["event"] == "dicom_listener_started"), 0)

            yield process, wait_for(port)
        finally:
            process.kill()
            process.wait(DEADLINE_S)


def test_a_kill_between_object_and_row_wants_nothing_but_the_object_again(
    ready: Settings, environ: dict[str, str], database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    die = "import os; from shared.intake.receive import Intake; Intake._record = lambda *_: os.kill(os.getpid(), 9)"
    with served(environ, tmp_path / "first", die) as (process, port):
        with association(port) as made:
            assert not made.send_c_store(pydicom.dcmread(BytesIO(dicom(1))))
        assert process.wait(DEADLINE_S) == -9
    assert len(list(store.keys("originals/"))) == 1
    assert not rows(database, Image)
    with served(environ, tmp_path / "second") as (_, port):
        [answer] = send(port, dicom(1))
        assert answer.Status == 0
    assert len(list(store.keys("originals/"))) == len(rows(database, Job)) == 1


def test_sigterm_lets_an_object_that_is_being_stored_be_answered(
    ready: Settings, environ: dict[str, str], database: Database, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    slow = (
        "import pathlib, time; from shared.intake.receive import Intake; record = Intake._record; "
        f"Intake._record = lambda *args: (pathlib.Path({str(begun)!r}).touch(), time.sleep(1.5), record(*args))[2]"
    )
    with (
        served(environ, tmp_path / "log", slow) as (process, port),
        association(port) as idle,
        association(port) as made,
    ):
        answers: list[Any] = []
        sending = threading.Thread(target=lambda: answers.append(made.send_c_store(pydicom.dcmread(BytesIO(dicom(1))))))
        sending.start()
        wait_for(begun.exists)
        process.terminate()
        sending.join()
        assert process.wait(DEADLINE_S) == 0
        assert [answer.Status for answer in answers] == [0]
        wait_for(lambda: not idle.is_established)
    assert len(rows(database, Job)) == 1


def test_the_command_says_why_it_does_not_start(ready: Settings, environ: dict[str, str]) -> None:
    # As a process of its own, like all that configure logging.
    command = [sys.executable, "-m", "deploy.cli", "dicom-listener"]
    env = os.environ | environ
    ended = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.returncode == 1
    assert "CARINA_DICOM_ALLOWED_AES" in ended.stderr
