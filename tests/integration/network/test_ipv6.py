"""IPv6 as an address to listen on, to be reached at, and to reach servers at."""

import hashlib
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
import sqlalchemy as sa
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from api.client import Carina
from api.dicom.listener import Listener
from shared.database import Database
from shared.object_store import ObjectStore
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import AuditEvent, Project
from shared.vocabulary.states import WorkerKind
from tests.integration.conftest import Keys, png
from tests.integration.forked import start_api
from tests.requirements import needs_ipv6
from tests.waiting import DEADLINE_S, wait_for


@pytest.fixture(scope="module", autouse=True)
def _ipv6() -> None:
    needs_ipv6()


@contextmanager
def api_at(host: str, environ: dict[str, str], *urls: str) -> Iterator[None]:
    """The API at a host of this machine; each URL answers."""
    port = urls[0].rpartition(":")[2]
    process = start_api(os.environ | environ | {"CARINA_API_HOST": host, "CARINA_API_PORT": port}, "")

    def answers() -> bool:
        assert process.is_alive()
        with suppress(httpx.TransportError):
            return all(httpx.get(f"{url}/healthz").is_success for url in urls)
        return False

    try:
        wait_for(answers)
        yield
    finally:
        process.terminate()
        process.join(timeout=DEADLINE_S)


def free_port() -> int:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as free:
        return free.getsockname()[1]


def addresses(database: Database) -> set[str | None]:
    with database.begin() as session:
        return set(session.scalars(sa.select(AuditEvent.remote_address)))


@pytest.mark.usefixtures("settings")
def test_an_api_for_both_families(
    environ: dict[str, str], keys: Keys, database: Database, carina: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    ipv4, ipv6 = f"http://127.0.0.1:{port}", f"http://[::1]:{port}"
    with api_at("::", environ, ipv4, ipv6):
        headers = {"Authorization": f"Bearer {keys.both}"}
        for seed, url in enumerate((ipv4, ipv6)):
            files = [("files", ("image.png", png(seed)))]
            assert httpx.post(f"{url}/v1/studies", files=files, headers=headers).is_success
            assert httpx.get(f"{url}/openapi.json").json()["servers"] == [{"url": url}]
        assert addresses(database) == {"127.0.0.1", "::1"}
        with Carina(f"{ipv6}/", keys.both) as client:
            assert len(list(client.studies())) == 2
        monkeypatch.setenv("CARINA_API_URL", f"{ipv6}/")
        monkeypatch.setenv("CARINA_API_KEY", keys.both)
        assert f"ready at {ipv6}" in carina("doctor", code=1)  # there are no workers
        assert carina("studies", "--format", "jsonl").count("\n") == 2


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_api_at_an_ipv6_address(host: str, environ: dict[str, str]) -> None:
    url = f"http://[::1]:{free_port()}"
    with api_at(host, environ, url), pytest.raises(httpx.ConnectError):
        httpx.get(url.replace("[::1]", "127.0.0.1"))


@pytest.mark.usefixtures("settings")
def test_an_api_at_a_unix_socket(environ: dict[str, str], keys: Keys, database: Database, tmp_path: Path) -> None:
    place = tmp_path / "api.sock"
    process = start_api(os.environ | environ | {"CARINA_API_HOST": f"unix:{place}", "CARINA_TRUSTED_PROXIES": "1"}, "")
    try:
        wait_for(place.exists)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(place), retries=5), base_url="http://ward") as http:
            wait_for(lambda: http.get("/readyz").is_success)
            headers = {"Authorization": f"Bearer {keys.both}", "X-Forwarded-For": "2001:db8::7"}
            assert http.post("/v1/studies", files=[("files", ("image.png", png()))], headers=headers).is_success
            assert http.get("/openapi.json").json()["servers"] == [{"url": "http://ward"}]
    finally:
        process.terminate()
        process.join(timeout=DEADLINE_S)
    assert addresses(database) == {"2001:db8::7"}


def test_at_a_unix_socket_no_header_is_believed_unless_proxies_are_trusted(
    environ: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    place = tmp_path / "api.sock"
    process = start_api(os.environ | environ | {"CARINA_API_HOST": f"unix:{place}"}, "")
    try:
        wait_for(place.exists)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(place), retries=5), base_url="http://ward") as http:
            wait_for(lambda: http.get("/readyz").is_success)
            for header in ({"X-Forwarded-Proto": "https"}, {"X-Forwarded-SSL": "on"}, {"X-Forwarded-Host": "evil"}):
                assert http.get("/openapi.json", headers=header).json()["servers"] == [{"url": "http://ward"}]
            assert http.get("/a/openapi.json", headers={"SCRIPT_NAME": "/a"}).status_code == 404
    finally:
        process.terminate()
        process.join(timeout=DEADLINE_S)


@pytest.mark.parametrize(
    ("host", "reached"),
    [("::", ["127.0.0.1", "::1"]), ("::1", ["::1"]), ("[::1]", ["::1"]), ("127.0.0.1", ["127.0.0.1"])],
)
def test_a_dicom_listener(host: str, reached: list[str], settings: Settings, database: Database) -> None:
    with database.begin() as session:
        session.add(Project(name="default"))
    changed = {"dicom_host": host, "dicom_port": 0, "dicom_allowed_aes": "SENDER"}
    with Listener(settings.model_copy(update=changed)) as listener:
        for address in reached:
            ae = AE("SENDER")
            ae.add_requested_context(Verification)
            association = ae.associate(address, listener.port, ae_title="CARINA")
            assert association.is_established
            assert association.send_c_echo().Status == 0
            association.release()


def test_servers_at_ipv6_addresses(settings: Settings, database: Database) -> None:
    del database  # it is made, and is reached by another way below
    with forwarded(settings.s3_endpoint_url) as s3:
        with (
            forwarded(settings.database_url.get_secret_value()) as postgres,
            forwarded(settings.redis_url.get_secret_value()) as redis,
        ):
            urls = {"database_url": postgres, "redis_url": redis, "s3_endpoint_url": s3}
            there = Settings.model_validate(settings.model_dump() | urls)
            connected = Database.from_settings(there)
            with connected.begin() as session:
                assert session.scalar(sa.text("SELECT inet_server_port()"))
            assert Hints(there, connected).send(WorkerKind.PREPARE, 1)
            connected.close()
        store = ObjectStore(there)
        store.put("originals/a", b"data")
        assert store.get("originals/a", sha256=hashlib.sha256(b"data").hexdigest()) == b"data"
        url = store.presign_put("incoming/b", 4, expires_s=60)
        assert url.startswith(s3)
        assert httpx.put(url, content=b"data").is_success


@contextmanager
def forwarded(url: str) -> Iterator[str]:
    """The same server at an IPv6 address."""
    parts = urlsplit(url)
    target = (parts.hostname, parts.port)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        stop = threading.Event()
        listening.settimeout(0.1)
        thread = threading.Thread(target=_forward, args=(listening, target, stop))
        thread.start()
        try:
            authority = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
            yield urlunsplit(parts._replace(netloc=f"{authority}[::1]:{listening.getsockname()[1]}"))
        finally:
            stop.set()
            thread.join()


def _forward(listening: socket.socket, target: tuple[str | None, int | None], stop: threading.Event) -> None:
    with selectors.DefaultSelector() as waiting:
        waiting.register(listening, selectors.EVENT_READ)
        opened: list[socket.socket] = []
        while not stop.is_set():
            for key, _ in waiting.select(0.1):
                if key.fileobj is listening:
                    there, here = socket.create_connection(target), listening.accept()[0]
                    here.settimeout(30)
                    opened += [here, there]
                    waiting.register(here, selectors.EVENT_READ, there)
                    waiting.register(there, selectors.EVENT_READ, here)
                    continue
                source, sink = key.fileobj, key.data
                with suppress(OSError):
                    if data := source.recv(65536):
                        sink.sendall(data)
                        continue
                    sink.shutdown(socket.SHUT_WR)
                waiting.unregister(source)
        for connection in opened:
            connection.close()
