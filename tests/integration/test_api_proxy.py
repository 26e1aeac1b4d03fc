"""Behind nginx, configured as `deploy/nginx.conf` says: addresses, URLs, large bodies and streams come out right."""

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.tables import AuditEvent
from tests.conftest import REPOSITORY
from tests.integration.conftest import Keys, Server, png
from tests.requirements import needs
from tests.synthetic_dicom import make_dicom, make_film


@pytest.fixture
def nginx(server: Server, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of nginx in front of the API, which believes one proxy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key, certificate = tmp_path / "carina.key", tmp_path / "carina.crt"
    make = [needs("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    text = (REPOSITORY / "deploy/nginx.conf").read_text()
    for there, here in {
        "/var/log/nginx/carina.log": str(tmp_path / "access.log"),
        "127.0.0.1:8080": f"127.0.0.1:{server.port}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "carina.example": "localhost",
        "/etc/ssl/carina.crt": str(certificate),
        "/etc/ssl/carina.key": str(key),
        "http {": "http {" + "".join(f"{name}_temp_path {tmp_path / name};" for name in _TEMPORARY),
    }.items():
        assert there in text
        text = text.replace(there, here)
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path / 'nginx.pid'};\nuser root;\n{text}")
    command = [needs("nginx"), "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log"]
    with subprocess.Popen([*command, "-g", "daemon off;"]) as process:
        try:
            trust = ssl.create_default_context(cafile=str(certificate))
            with httpx.Client(base_url=f"https://localhost:{port}", verify=trust, timeout=60) as http:
                deadline = time.monotonic() + 20
                while time.monotonic() < deadline:
                    with suppress(httpx.TransportError):
                        http.get("/healthz").raise_for_status()
                        break
                    time.sleep(0.1)
                yield http
        finally:
            process.terminate()


_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_TRUSTING = pytest.mark.parametrize("server", ["import os; os.environ['CARINA_TRUSTED_PROXIES'] = '1'"], indirect=True)


def addresses(database: Database) -> list[str | None]:
    with database.begin() as session:
        return list(session.scalars(sa.select(AuditEvent.remote_address).order_by(AuditEvent.id)))


def retrieve_url(http: httpx.Client, keys: Keys, **headers: str) -> str:
    film = make_dicom(make_film(), SeriesInstanceUID="1.2.3.1")
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + film + b"\r\n--b--\r\n"
    content_type = 'multipart/related; type="application/dicom"; boundary=b'
    sent = {"Authorization": f"Bearer {keys.both}", "Content-Type": content_type, **headers}
    answer = http.post("/dicom-web/studies", content=body, headers=sent)
    assert answer.status_code == 200
    return answer.json()["00081190"]["Value"][0]


@_TRUSTING
def test_urls_and_addresses_are_the_clients(nginx: httpx.Client, keys: Keys, database: Database) -> None:
    assert retrieve_url(nginx, keys) == f"{nginx.base_url}/dicom-web/studies/1.2.3"
    # What a client says of itself is one hop too far.
    retrieve_url(nginx, keys, **{"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "gopher"})
    assert addresses(database) == ["127.0.0.1", "127.0.0.1"]


@_TRUSTING
def test_a_proxys_word_is_believed_where_one_is_expected(server: Server, keys: Keys, database: Database) -> None:
    said = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "ward"}
    with httpx.Client(base_url=server.url) as http:
        assert retrieve_url(http, keys, **said).startswith("https://ward/dicom-web/")
    assert addresses(database) == ["203.0.113.9"]


def test_nobodys_word_is_believed_where_no_proxy_is_expected(server: Server, keys: Keys, database: Database) -> None:
    said = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "ward"}
    with httpx.Client(base_url=server.url) as http:
        assert retrieve_url(http, keys, **said).startswith(f"{server.url}/dicom-web/")
    assert addresses(database) == ["127.0.0.1"]


@_TRUSTING
def test_large_bodies_and_streams_pass_through(nginx: httpx.Client, keys: Keys, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {keys.both}"}
    film = png(3, 1500)  # of more than nginx takes or holds back by itself
    sent = nginx.post("/v1/studies", files=[("files", ("DOE^JANE.png", film))], params={"priority": 3}, headers=headers)
    assert sent.json()["files"][0]["outcome"] == "accepted"
    made = nginx.post("/v1/submissions", json={"files": []}, headers=headers).json()["submission"]["id"]
    with nginx.stream("GET", f"/v1/submissions/{made}/events", headers=headers) as events:
        assert events.headers["Content-Type"].startswith("text/event-stream")
        assert next(events.iter_lines())  # at once, while the stream goes on
    logged = (tmp_path / "access.log").read_text()
    assert "POST /v1/studies 202" in logged
    assert "DOE" not in logged
    assert keys.both.split("_", 2)[2] not in logged
