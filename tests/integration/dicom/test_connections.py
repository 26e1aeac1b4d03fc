"""Hostile and careless peers of the DICOM listener: what each costs, and for how long."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path

import psycopg
import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    Verification,
)

from api.dicom import admission
from api.dicom.listener import Listener
from shared.database import Database
from shared.intake.receive import Intake
from shared.network.addresses import origin_of
from shared.settings import Settings
from shared.tables import Project
from tests.integration.workshop import dicom
from tests.requirements import REPOSITORY, needs
from tests.waiting import DEADLINE_S, wait_for

pytestmark = pytest.mark.usefixtures("senders_close")

SYNTAX = b"1.2.840.10008.1.2"
REFUSED = b"\x03\0\0\0\0\x04\0"


@pytest.fixture
def small(settings: Settings, database: Database) -> Settings:
    """Settings with caps that a test can reach."""
    with database.begin() as session:
        session.add(Project(name="default"))
    caps = {"dicom_pending": 6, "dicom_pending_per_address": 3, "dicom_associations": 2}
    return settings.model_copy(update={"dicom_port": 0, "dicom_allowed_aes": "SENDER, OTHER"} | caps)


@pytest.fixture
def listener(small: Settings) -> Iterator[Listener]:
    with Listener(small) as running:
        yield running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody take longer than a second over anything."""
    monkeypatch.setattr("api.dicom.admission.ASSOCIATE_S", 1)
    monkeypatch.setattr("api.dicom.admission.LINGER_S", 0.5)
    monkeypatch.setattr("api.dicom.listener.SILENCE_S", 1)
    monkeypatch.setattr("api.dicom.peer.SILENCE_S", 1)
    monkeypatch.setattr("api.dicom.server.SILENCE_S", 1)


def request(calling: bytes = b"SENDER", called: bytes = b"CARINA", *, items: bytes | None = None) -> bytes:
    """An association request for Verification, PS3.8 section 9.3.2."""

    def item(kind: int, value: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(value)) + value

    if items is None:
        context = b"\x01\0\0\0" + item(0x30, b"1.2.840.10008.1.1") + item(0x40, SYNTAX)
        user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3")
        items = item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    body = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32) + items
    return struct.pack(">BxI", 1, len(body)) + body


def connect(listener: Listener, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port), timeout=DEADLINE_S, source_address=(address, 0))


def read(connection: socket.socket) -> bytes:
    """Everything up to the end, however the other side brings it about."""
    answer = b""
    try:
        while part := connection.recv(4096):
            answer += part
    except ConnectionResetError:
        pass
    return answer


def ask(listener: Listener, message: bytes) -> bytes:
    """The answer to a first message, which ends the connection."""
    with connect(listener) as connection:
        connection.sendall(message)
        return read(connection)


@contextmanager
def association(listener: Listener, *, address: str = "127.0.0.1", calling: str = "SENDER") -> Iterator[Association]:
    ae = AE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = DEADLINE_S
    for context in (Verification, ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation):
        ae.add_requested_context(context)
    made = ae.associate("127.0.0.1", listener.port, ae_title="CARINA", bind_address=(address, 0))
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


# --- before an association -------------------------------------------------------------------------------------------


def test_silent_connections_of_one_address_keep_no_other_one_out(listener: Listener) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(listener))
        wait_for(lambda: listener.admission.pending == 3)
        with connect(listener) as fourth:
            assert read(fourth) == REFUSED + b"\x02\x03\x01", "rejected, transient, temporary congestion"
        with association(listener, address="127.0.0.2") as made:
            assert made.is_established
        for address in ("127.0.0.3", "127.0.0.3", "127.0.0.4"):
            stack.enter_context(connect(listener, address))
        wait_for(lambda: listener.admission.pending == 6)
        with connect(listener, "127.0.0.5") as beyond_all:
            assert read(beyond_all) == REFUSED + b"\x02\x03\x01"
    wait_for(lambda: not listener.admission.pending)
    with association(listener) as made:
        assert made.is_established


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_one_machine_counts_as_one_however_many_addresses_it_has(one: str, other: str, same: bool) -> None:
    assert (origin_of(one) == origin_of(other)) is same


def test_dcmtk_is_told_of_the_congestion(listener: Listener) -> None:
    command = [needs("echoscu"), "-v", "-aet", "SENDER", "-aec", "CARINA", "127.0.0.1", str(listener.port)]
    with connect(listener), connect(listener), connect(listener):
        wait_for(lambda: listener.admission.pending == 3)
        said = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert said.returncode != 0
    assert "Temporary Congestion" in said.stderr + said.stdout
    wait_for(lambda: not listener.admission.pending)
    assert subprocess.run(command, timeout=DEADLINE_S, stderr=subprocess.DEVNULL).returncode == 0


def test_strangers_take_no_association_from_those_who_may(small: Settings) -> None:
    one = small.model_copy(update={"dicom_associations": 1})
    with Listener(one) as listener, connect(listener) as silent, connect(listener) as stranger:
        stranger.sendall(request(b"STRANGER"))
        assert stranger.recv(10) == REFUSED + b"\x01\x01\x03"
        silent.sendall(request()[:-1])
        with association(listener) as made:
            assert made.is_established
            assert listener.admission.associations == 1


@pytest.mark.usefixtures("impatient")
def test_a_trickle_of_bytes_does_not_extend_the_time_for_a_request(listener: Listener) -> None:
    with connect(listener) as connection:
        connection.settimeout(0.05)
        message = request()

        def is_closed() -> bool:
            nonlocal message
            try:
                connection.send(message[:1])
                message = message[1:] or b"\0"
                return connection.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_for(is_closed)
        assert len(message) > 100, "the request was nowhere near its end"
    wait_for(lambda: not listener.admission.pending)


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (request(b"STRANGER"), REFUSED + b"\x01\x01\x03"),
        (request(b"SENDER2"), REFUSED + b"\x01\x01\x03"),
        (request(b"SENDE"), REFUSED + b"\x01\x01\x03"),
        (request(b"sender"), REFUSED + b"\x01\x01\x03"),
        (request(b"SEN DER"), REFUSED + b"\x01\x01\x03"),
        (request(b""), REFUSED + b"\x01\x01\x03"),
        (request(b"SENDER\0"), REFUSED + b"\x01\x01\x03"),
        (request(b"\xff" * 16), REFUSED + b"\x01\x01\x03"),
        (request(called=b"CARINA2"), REFUSED + b"\x01\x01\x07"),
        (request(called=b""), REFUSED + b"\x01\x01\x07"),
        (request(items=b"\x50\0\xff\xff"), b"\x07\0\0\0\0\x04\0\0\x02\x06"),
        (request(items=b"\x20" * 100), b"\x07\0\0\0\0\x04\0\0\x02\x06"),
        (request(items=b""), b"\x07\0\0\0\0\x04\0\0\x02\x06"),
        (b"\x01\0\0\0\0\x02\0\x01", b"\x07\0\0\0\0\x04\0\0\x02\x06"),
        (b"\x04\0\0\0\0\x04\0\0\0\0", b"\x07\0\0\0\0\x04\0\0\x02\x02"),
        (b"GET / HTTP/1.1\r\n\r\n", b"\x07\0\0\0\0\x04\0\0\x02\x02"),
        (struct.pack(">BxI", 1, admission.MAX_REQUEST_BYTES + 1), b""),
    ],
)
def test_a_request_is_refused_for_what_is_wrong_with_it(message: bytes, answer: bytes, listener: Listener) -> None:
    with connect(listener) as connection:
        connection.sendall(message)
        assert read(connection) == answer
    assert listener.admission.associations == 0


@pytest.mark.parametrize("calling", [b"SENDER", b" SENDER ", b"          OTHER"])
def test_the_padding_of_a_title_does_not_count(calling: bytes, listener: Listener) -> None:
    with connect(listener) as connection:
        connection.sendall(request(calling, b"  CARINA"))
        assert connection.recv(1) == b"\x02", "accepted"


def test_associations_beyond_the_most_are_refused(listener: Listener) -> None:
    with association(listener) as first, association(listener) as second:
        assert first.is_established
        assert second.is_established
        assert ask(listener, request()) == REFUSED + b"\x02\x03\x02", "rejected, transient, local limit exceeded"
    wait_for(lambda: not listener.admission.associations)
    with association(listener) as made:
        assert made.is_established


# --- within an association -------------------------------------------------------------------------------------------


def data(command: bytes, *, is_last: bool = False) -> bytes:
    """A part of a command in a P-DATA-TF message, PS3.8 section 9.3.5."""
    value = struct.pack(">IBB", len(command) + 2, 1, 3 if is_last else 1) + command
    return struct.pack(">BxI", 4, len(value)) + value


def establish(listener: Listener) -> socket.socket:
    connection = connect(listener)
    connection.sendall(request())
    assert connection.recv(1) == b"\x02"
    return connection


@pytest.mark.usefixtures("impatient")
def test_an_association_without_a_message_ends(listener: Listener) -> None:
    with establish(listener) as connection:
        read(connection)
    wait_for(lambda: not listener.admission.associations)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("parts", [data(b"\0") * 100_000, data(bytes(100_000))], ids=["of many messages", "of one"])
def test_an_object_that_is_sent_by_the_byte_ends_the_association(parts: bytes, listener: Listener) -> None:
    with establish(listener) as connection:
        connection.settimeout(0.05)
        step, sent = (len(data(b"\0")) if parts.startswith(data(b"\0")) else 1), 0

        def is_closed() -> bool:
            nonlocal sent
            try:
                sent += connection.send(parts[sent : sent + step])
                while connection.recv(4096):
                    pass
                return True
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_for(is_closed)
    wait_for(lambda: not listener.admission.associations)


def test_messages_that_do_not_wait_for_answers_end_the_association(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would be kept in memory."""
    go_on = threading.Event()
    receive = Intake.receive

    def wait(*args: object, **kwargs: object) -> object:
        go_on.wait(DEADLINE_S)
        return receive(*args, **kwargs)

    monkeypatch.setattr(Intake, "receive", wait)
    with association(listener) as made:
        file = pydicom.dcmread(BytesIO(dicom(1)))
        context = next(c.context_id for c in made.accepted_contexts if c.abstract_syntax == Verification)
        sending = threading.Thread(target=lambda: made.send_c_store(file))
        sending.start()
        try:
            wait_for(lambda: any(peer._busy for peer in listener.peers))
            for number in range(2, 10):
                echo = C_ECHO()
                echo.MessageID, echo.AffectedSOPClassUID = number, Verification
                made.dimse.send_msg(echo, context)
            wait_for(lambda: made.is_aborted or not made.is_established)
        finally:
            go_on.set()
            sending.join()
    wait_for(lambda: not listener.admission.associations)


# --- afterwards ------------------------------------------------------------------------------------------------------


def vanish(listener: Listener) -> None:
    """Reset the connection in the middle of an association."""
    with establish(listener) as connection:
        connection.sendall(data(b"\0" * 100)[:50])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def abort(listener: Listener) -> None:
    with establish(listener) as connection:
        connection.sendall(b"\x07\0\0\0\0\x04\0\0\0\0")
        read(connection)


def fail(listener: Listener) -> None:
    """Send what nothing can parse within an association."""
    with establish(listener) as connection:
        connection.sendall(data(b"\xff" * 300, is_last=True) + b"\x09\0\0\0\0\0")
        read(connection)


def talk_on(listener: Listener) -> None:
    """Go on sending after the end."""
    with establish(listener) as connection:
        with suppress(ConnectionError):
            connection.sendall(b"\x07\0\0\0\0\x04\0\0\0\0" + data(bytes(1000)) * 100)
        read(connection)


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "misbehave",
    [
        lambda listener: connect(listener).close(),
        lambda listener: ask(listener, request(b"STRANGER")),
        lambda listener: ask(listener, b"\x09" * 6),
        vanish,
        abort,
        fail,
        talk_on,
    ],
    ids=["leave", "stranger", "garbage", "vanish", "abort", "fail", "talk on"],
)
def test_every_thread_and_socket_comes_back(misbehave: Callable[[Listener], None], listener: Listener) -> None:
    threads = set(threading.enumerate())
    sockets = count_descriptors()
    for _ in range(5):
        misbehave(listener)
    wait_for(lambda: not listener.admission.pending and not listener.admission.associations)
    wait_for(lambda: not {t for t in threading.enumerate() if t.name.startswith(("Acceptor", "Thread-"))} - threads)
    wait_for(lambda: count_descriptors() <= sockets + 3)  # the listener may have opened connections to its servers
    with association(listener) as made:
        assert made.is_established


def test_a_stop_ends_whoever_has_no_association_and_whoever_is_idle(small: Settings) -> None:
    threads = set(threading.enumerate())
    with ExitStack() as stack:
        with Listener(small) as listener:
            silent = stack.enter_context(connect(listener))
            idle = stack.enter_context(establish(listener))
            wait_for(lambda: listener.admission.pending == 1)
            begun = time.monotonic()
        assert time.monotonic() - begun < admission.ASSOCIATE_S, "nobody was waited for"
        assert read(silent) == b""
        read(idle)
    wait_for(lambda: not {t for t in threading.enumerate() if t.name.startswith("Acceptor")} - threads)


def test_it_waits_for_a_database_that_is_away(small: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    more = {"CARINA_DICOM_PORT": "0", "CARINA_DICOM_ALLOWED_AES": "SENDER"}
    command = [sys.executable, "-m", "deploy.cli", "dicom-listener"]
    base, _, name = environ["CARINA_DATABASE_URL"].rpartition("/")

    def events() -> list[str]:
        return [json.loads(line)["event"] for line in log.read_text().splitlines() if line.startswith("{")]

    with (
        log.open("ab") as stderr,
        psycopg.connect(f"{base}/postgres", autocommit=True) as administrator,
    ):
        administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        with subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | environ | more, stderr=stderr) as process:
            try:
                wait_for(lambda: "dicom_listener_waits" in events() or process.poll() is not None, log.read_text)
                assert process.poll() is None
                administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
                wait_for(lambda: "dicom_listener_started" in events(), log.read_text)
                process.terminate()
                assert process.wait(DEADLINE_S) == 0
            finally:
                process.kill()
                process.wait(DEADLINE_S)
