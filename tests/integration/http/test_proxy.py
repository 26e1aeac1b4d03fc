"""Behind nginx, configured as `deploy/nginx.conf` says: addresses, URLs, large bodies and streams come out right."""

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pydicom
import pytest
import sqlalchemy as sa
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass

from api.client import Carina
from shared.database import Database
from shared.object_store import ObjectStore
from shared.tables import AuditEvent
from tests.certificates import Authority
from tests.integration.conftest import Keys, Server, png
from tests.integration.console.test_viewer import add_shown_image
from tests.ports import free_port
from tests.requirements import REPOSITORY, needs
from tests.synthetic_dicom import make_dicom, make_image
from tests.waiting import DEADLINE_S, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def nginx(server: Server, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of nginx in front of the API, which believes one proxy."""
    port = free_port()
    authority = Authority(tmp_path)
    own = authority.sign()
    text = (REPOSITORY / "deploy/nginx.conf").read_text()
    for there, here in {
        "/var/log/nginx/carina.log": str(tmp_path / "access.log"),
        "127.0.0.1:8080": f"127.0.0.1:{server.port}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "carina.example": "localhost",
        "/etc/ssl/carina.crt": str(own.path),
        "/etc/ssl/carina.key": str(own.key),
        "http {": "http {" + "".join(f"{name}_temp_path {tmp_path / name};" for name in _TEMPORARY),
    }.items():
        assert there in text
        text = text.replace(there, here)
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path / 'nginx.pid'};\nuser root;\n{text}")
    command = [needs("nginx"), "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log"]
    with subprocess.Popen([*command, "-g", "daemon off;"]) as process:
        try:
            trust = ssl.create_default_context(cafile=str(authority.certificate))
            with httpx.Client(base_url=f"https://localhost:{port}", verify=trust, timeout=DEADLINE_S) as http:

                def answers() -> bool:
                    with suppress(httpx.TransportError):
                        return http.get("/healthz").is_success
                    return False

                wait_for(answers)
                yield http
        finally:
            process.terminate()


_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_TRUST = "import os; os.environ |= {'CARINA_TRUSTED_PROXIES': '1', 'CARINA_SESSION_SECRET': 's' * 32}"
_TRUSTING = pytest.mark.parametrize("server", [_TRUST], indirect=True)


def addresses(database: Database) -> list[str | None]:
    with database.begin() as session:
        return list(session.scalars(sa.select(AuditEvent.remote_address).order_by(AuditEvent.id)))


def retrieve_url(http: httpx.Client, keys: Keys, **headers: str) -> str:
    image = make_dicom(make_image(), SeriesInstanceUID="1.2.3.1")
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + image + b"\r\n--b--\r\n"
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
    with httpx.Client(base_url=server.url, timeout=DEADLINE_S) as http:
        assert retrieve_url(http, keys, **said).startswith("https://ward/dicom-web/")
    assert addresses(database) == ["203.0.113.9"]


def test_nobodys_word_is_believed_where_no_proxy_is_expected(server: Server, keys: Keys, database: Database) -> None:
    said = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "ward"}
    with httpx.Client(base_url=server.url, timeout=DEADLINE_S) as http:
        assert retrieve_url(http, keys, **said).startswith(f"{server.url}/dicom-web/")
    assert addresses(database) == ["127.0.0.1"]


@_TRUSTING
def test_clients_say_nothing_of_ports_and_prefixes(nginx: httpx.Client) -> None:
    forged = {"X-Forwarded-Port": "1", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Host": "evil.example"}
    for prefix in ("", "/carina"):
        answer = nginx.get(f"{prefix}/openapi.json", headers=forged)
        assert answer.json()["servers"] == [{"url": f"{nginx.base_url}{prefix}"}]


@_TRUSTING
def test_programs_work_under_a_prefix(nginx: httpx.Client, keys: Keys, tmp_path: Path) -> None:
    assert nginx.get("/carina").headers["Location"] == "/carina/"
    assert nginx.get("/carina/").headers["Location"] == "/carina/console/studies"
    url = f"{nginx.base_url}/carina"
    session = create_session_from_user_pass("carina", keys.both)
    session.verify, session.trust_env = str(tmp_path / "authority.pem"), False
    dicomweb = DICOMwebClient(f"{url}/dicom-web", session=session)
    dicomweb.host = nginx.base_url.netloc.decode()  # which it sends as Host, by itself without the port
    image = make_dicom(make_image(), SeriesInstanceUID="1.2.3.1")
    stored = dicomweb.store_instances([pydicom.dcmread(BytesIO(image))])
    assert stored.RetrieveURL == f"{url}/dicom-web/studies/1.2.3"
    (described,) = dicomweb.retrieve_study_metadata("1.2.3")
    assert dicomweb.retrieve_bulkdata(described["7FE00010"]["BulkDataURI"])
    assert dicomweb.search_for_studies()[0]["00081190"]["Value"] == [f"{url}/dicom-web/studies/1.2.3"]
    with Carina(f"{url}/", keys.both, ca_bundle=str(tmp_path / "authority.pem")) as client:
        (tmp_path / "image.png").write_bytes(png(5))
        assert client.submit_all([tmp_path / "image.png"]).file_count == 1
        assert len(list(client.studies())) == 2


@_TRUSTING
def test_the_console_works_under_a_prefix(
    nginx: httpx.Client,
    keys: Keys,
    database: Database,
    store: ObjectStore,
    open_console: Callable[[str, str], "Page"],
    tmp_path: Path,
) -> None:
    images = [add_shown_image(database, store, keys.both, seed) for seed in range(2)]
    root = f"{nginx.base_url}/carina"
    page = open_console(root, keys.both)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    assert page.url == f"{root}/console/studies"
    (cookie,) = page.context.cookies()
    assert (cookie["name"], cookie["path"], cookie["secure"]) == ("__Secure-carina", "/carina", True)
    # An image from the page into the system: the request for it carries the session and its token.
    (tmp_path / "image.png").write_bytes(png(7))
    page.locator("#upload-files-input").set_input_files(tmp_path / "image.png")
    page.get_by_role("link", name="Study", exact=True).wait_for()
    page.get_by_label("State").select_option("succeeded")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(f"{root}/console/studies?state=succeeded")
    page.locator("tbody a").first.click()
    page.locator("body[data-shown]").wait_for()
    assert page.url.startswith(f"{root}/console/studies/{images[1].study_id}")
    page.keyboard.press("]")
    page.wait_for_url(f"{root}/console/studies/{images[0].study_id}**")
    page.reload()
    page.locator("body[data-shown]").wait_for()
    for name in ("Queue", "Training", "Models", "Schedules"):
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        page.get_by_role("heading", name=name, exact=True).wait_for()
        if name == "Queue":
            page.get_by_text("live", exact=True).wait_for()
    page.goto(f"{root}/docs")
    page.get_by_text("Carina", exact=False).first.wait_for()
    page.goto(f"{root}/console/studies")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{root}/console/sign-in")
    assert page.context.cookies() == []
    page.goto(f"{root}/console/queue")
    assert page.url == f"{root}/console/sign-in?next=/carina/console/queue"
    assert {url for url in asked if not url.startswith((f"{root}/", "data:", "blob:"))} == set()


def test_the_example_is_valid(tmp_path: Path) -> None:
    """Our own nginx reads it as it is, but for the places of the certificate and the log."""
    text = (REPOSITORY / "deploy/nginx.conf").read_text()
    own = Authority(tmp_path).sign()
    text = text.replace("/etc/ssl/carina.crt", str(own.path)).replace("/etc/ssl/carina.key", str(own.key))
    text = text.replace("/var/log/nginx", str(tmp_path))
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path / 'nginx.pid'};\n{text}")
    check = [needs("nginx"), "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr.replace('[warn] the "user" directive', "")


@_TRUSTING
def test_large_bodies_and_streams_pass_through(nginx: httpx.Client, keys: Keys, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {keys.both}"}
    image = png(3, 1500)  # of more than nginx takes or holds back by itself
    sent = nginx.post(
        "/v1/studies", files=[("files", ("DOE^JANE.png", image))], params={"priority": 3}, headers=headers
    )
    assert sent.json()["files"][0]["outcome"] == "accepted"
    made = nginx.post("/v1/submissions", json={"files": []}, headers=headers).json()["submission"]["id"]
    with nginx.stream("GET", f"/v1/submissions/{made}/events", headers=headers) as events:
        assert events.headers["Content-Type"].startswith("text/event-stream")
        assert next(events.iter_lines())  # at once, while the stream goes on
    logged = (tmp_path / "access.log").read_text()
    assert "POST /v1/studies 202" in logged
    assert "DOE" not in logged
    assert keys.both.split("_", 2)[2] not in logged


@_TRUSTING
def test_nginx_bounds_bodies_headers_and_attempts_to_sign_in(nginx: httpx.Client, keys: Keys) -> None:
    headers = {"Authorization": f"Bearer {keys.both}"}
    for root in ("", "/carina"):
        assert nginx.post(f"{root}/v1/submissions", content=bytes(1024**2 + 1), headers=headers).status_code == 413
        assert nginx.post(f"{root}/console/sign-in", data={"key": "k" * 4096}).status_code == 413
        image = png(3, 1100)
        sent = nginx.post(f"{root}/v1/studies", files=[("files", ("a.png", image))], headers=headers)
        assert (len(image) > 1024**2, sent.status_code) == (True, 202)
    assert nginx.get("/healthz", headers={"X-Long": "y" * 9000}).status_code == 400
    tried = {nginx.post("/console/sign-in", data={"key": "wrong"}).status_code for _ in range(40)}
    assert tried == {401, 429}
    assert nginx.get("/console/sign-in").status_code == 200


@_TRUSTING
def test_nginx_bounds_the_connections_of_an_address(nginx: httpx.Client) -> None:
    port = nginx.base_url.port
    assert port is not None
    trust = ssl._create_unverified_context()
    with ExitStack() as stack:

        def begin() -> None:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection = stack.enter_context(trust.wrap_socket(connection))
            # A request under way, whose body does not arrive, is what nginx counts.
            connection.sendall(b"POST /v1/submissions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")

        for _ in range(256):
            begin()
        wait_for(lambda: nginx.get("/healthz").status_code == 429)
    wait_for(lambda: nginx.get("/healthz").status_code == 200)
