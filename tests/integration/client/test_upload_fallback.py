"""A client that cannot use the object store says which host, and sends its files through the API: each of them once."""

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from api.app import create_app
from api.client import Journal
from api.client import connection as connection_module
from api.contract.submissions import AnnouncedFile
from api.http.services import NAME
from shared.database import Database
from shared.intake.archives import ArchiveKind
from shared.queue.hints import Hints
from shared.settings import Settings
from tests.http_proxy import Answer, Proxy, Request
from tests.integration.conftest import Api, Keys, Server, png
from tests.integration.network.test_ca_bundle import run
from tests.integration.submitting import Counting, Desk, make_archive
from tests.integration.workshop import dicom
from tests.ports import free_port

MIB = 1024**2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images."""
    images = tmp_path / "films"
    images.mkdir()
    for number in range(8):
        (images / f"{number}.png").write_bytes(png(number))
    return images


@pytest.fixture
def connected(settings: Settings, keys: Keys) -> Iterator[Callable[[str], Counting]]:
    """A client of an API that allows direct uploads to a URL."""
    opened = []

    def connect(public_url: str) -> Counting:
        app = create_app(settings.model_copy(update={"direct_uploads": True, "s3_public_url": public_url}))
        opened.append((client := Counting(app, keys.both), app))
        return client

    yield connect
    for client, app in opened:
        client.close()
        app.extensions[NAME].close()


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    """What clients know as the object store."""
    port = urlsplit(settings.s3_endpoint_url).port
    assert port is not None
    with Proxy(port).serving() as serving:
        yield serving


@contextmanager
def black_hole() -> Iterator[tuple[int, list[socket.socket]]]:
    """A port that accepts connections and never answers; yields those, too."""
    accepted: list[socket.socket] = []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)

        def accept() -> None:
            while True:
                try:
                    accepted.append(listening.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1], accepted
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in accepted:
                connection.close()


def check_through_api(client: Counting, folder: Path, said: list[str], host: str) -> None:
    """Submit, and see every file taken in once through the API, after one word about the host."""
    submission = client.submit_all([folder], on_fallback=lambda error: said.append(error.detail))
    assert len(said) == 1
    assert host in said[0]
    rows = list(client.manifest(submission.id))
    assert [row.outcome for row in rows] == ["accepted"] * 8
    through_api = [path for path, _ in client.put if path.startswith("/v1/")]
    assert len(set(through_api)) == len(through_api) == 8
    assert client.submission(submission.id).counts.accepted == 8


def test_a_host_that_refuses_connections_is_said(connected: Callable[[str], Counting], folder: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    client, said = connected(f"http://{host}"), []
    check_through_api(client, folder, said, host)
    assert said[0].endswith("does not answer: nothing listens there.")
    assert len(client.put) == 8, "the object store is asked once, and no file is sent to it"


def test_a_host_that_never_answers_is_said(connected: Callable[[str], Counting], folder: Path) -> None:
    """Connecting, the request and its answer each have a bound, all of them together of less than 10 s."""
    assert 3 * connection_module._REACH_S < 10
    with black_hole() as (port, accepted):
        client, said = connected(f"http://127.0.0.1:{port}"), []
        check_through_api(client, folder, said, f"127.0.0.1:{port}")
        assert said[0].endswith("does not answer: it takes too long.")
        assert len(accepted) == 1


def test_a_host_that_refuses_the_urls_is_said(connected: Callable[[str], Counting], folder: Path, proxy: Proxy) -> None:
    proxy.judge = lambda request: Answer(403) if request.method == "PUT" else None
    check_through_api(connected(proxy.url), folder, [], f"127.0.0.1:{proxy.port}")


def test_a_host_that_goes_away_in_between_is_said(
    connected: Callable[[str], Counting], tmp_path: Path, proxy: Proxy, desk: Desk
) -> None:
    """Of a file in parts the first one arrived; the whole of it goes through the API, and the part is collected."""
    content = png() + bytes(130 * MIB)
    (tmp_path / "large.png").write_bytes(content)
    gone = []

    def judge(request: Request) -> Answer | None:
        if gone or request.query.get("partNumber") == ["2"]:
            gone.append(request)
            raise ConnectionResetError  # the connection ends without an answer
        return None

    proxy.judge = judge
    client, said = connected(proxy.url), []
    submission = client.submit_all(
        [tmp_path / "large.png"], threads=1, on_fallback=lambda error: said.append(error.detail)
    )
    (row,) = client.manifest(submission.id)
    assert (row.outcome, row.sha256) == ("accepted", hashlib.sha256(content).hexdigest())
    assert [f"127.0.0.1:{proxy.port}" in line for line in said] == [True]
    assert [path for path, _ in client.put if path.startswith("/v1/")] == [
        f"/v1/submissions/{submission.id}/files/0/content"
    ]


def test_a_server_that_no_longer_offers_the_object_store_is_sent_the_whole_file(
    connected: Callable[[str], Counting], tmp_path: Path, proxy: Proxy, settings: Settings
) -> None:
    content = png() + bytes(130 * MIB)
    (tmp_path / "large.png").write_bytes(content)
    client, said = connected(proxy.url), []

    def judge(request: Request) -> Answer | None:
        if request.query.get("partNumber") != ["2"]:
            return None
        services = client.app.extensions[NAME]
        client.app.extensions[NAME] = replace(services, settings=settings)
        return Answer(403)  # the URL has grown too old

    proxy.judge = judge
    submission = client.submit_all(
        [tmp_path / "large.png"], threads=1, on_fallback=lambda error: said.append(error.detail)
    )
    assert [row.outcome for row in client.manifest(submission.id)] == ["accepted"]
    assert said == ["The server no longer offers uploads to the object store."]


def test_what_was_interrupted_goes_on_through_the_api_and_sends_nothing_twice(
    connected: Callable[[str], Counting], folder: Path, tmp_path: Path
) -> None:
    client = connected(f"http://127.0.0.1:{free_port()}")
    client.stop_after = 3
    with Journal(tmp_path / "journal") as journal, pytest.raises(KeyboardInterrupt):
        client.submit_all([folder], threads=1, journal=journal)
    client.stop_after = 10**9
    with Journal(tmp_path / "journal") as journal:
        submission = client.submit_all([folder], journal=journal)
        journal.remove()
    assert len({path for path, _ in client.put}) == len(client.put) == 8
    assert submission.file_count == 8
    assert client.submission(submission.id).counts.accepted == 8


def test_single_uploads_and_what_is_sent_again_fall_back_too(
    connected: Callable[[str], Counting], folder: Path, desk: Desk
) -> None:
    client = connected(f"http://127.0.0.1:{free_port()}")
    made = client.create_submission().submission
    path = folder / "0.png"
    client.announce(made.id, [announced(path)])
    client.complete(made.id)
    desk.receive()
    assert client.submission(made.id).codes == {"not_uploaded": 1}
    assert client.retry_submission(made.id).to_upload == 1
    assert client.resend(made.id, [folder]) == 1
    assert [row.outcome for row in client.manifest(made.id)] == ["accepted"]


def announced(path: Path) -> AnnouncedFile:
    content = path.read_bytes()
    return AnnouncedFile(byte_count=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture
def desk(settings: Settings, database: Database, hints: Hints) -> Desk:
    return Desk(settings, database, hints)


def test_the_api_takes_an_archive_that_was_to_come_in_parts(
    make_api: Callable[[Settings], Api], settings: Settings, desk: Desk
) -> None:
    """It is larger than an image may be, and some of its parts have arrived."""
    archive = make_archive(ArchiveKind.ZIP, dicom(1), os.urandom(65 * MIB))
    limits = {"direct_uploads": True, "max_upload_bytes": 32 * MIB}
    api = make_api(settings.model_copy(update=limits))
    told = {"name": "", "byte_count": len(archive), "sha256": hashlib.sha256(archive).hexdigest()}
    made = api.post("/v1/submissions", {"files": [told]}).json
    first = made["uploads"][0]["parts"][0]
    httpx.put(first["url"], content=archive[: first["byte_count"]]).raise_for_status()
    path = f"/v1/submissions/{made['submission']['id']}"
    answer = api.put(f"{path}/files/0/content", archive)
    assert (answer.status_code, answer.json["outcome"]) == (200, "arrived")
    desk.receive()
    outcomes = {row["outcome"] for row in api.get(f"{path}/manifest").json["files"]}
    assert outcomes == {"unpacked", "accepted", "rejected:unsupported_file_type"}


def test_a_image_that_is_too_large_is_refused_there(make_api: Callable[[Settings], Api], settings: Settings) -> None:
    image = png() + bytes(2 * MIB)
    api = make_api(settings.model_copy(update={"direct_uploads": True, "max_upload_bytes": MIB}))
    told = {"name": "", "byte_count": len(image), "sha256": hashlib.sha256(image).hexdigest()}
    made = api.post("/v1/submissions", {"files": [told]}).json
    answer = api.put(f"/v1/submissions/{made['submission']['id']}/files/0/content", image)
    assert answer.json["outcome"] == "rejected:file_too_large"


def test_by_default_no_client_is_sent_to_the_object_store(
    make_api: Callable[[Settings], Api], settings: Settings
) -> None:
    image = png()
    told = {"name": "", "byte_count": len(image), "sha256": hashlib.sha256(image).hexdigest()}
    (upload,) = make_api(settings).post("/v1/submissions", {"files": [told]}).json["uploads"]
    assert upload["through_api"]
    assert "/v1/submissions/" in upload["url"]


@pytest.fixture
def environ(environ: dict[str, str], request: pytest.FixtureRequest) -> dict[str, str]:
    """For the test of the command line the served API names a port where nothing listens."""
    if "server" not in request.fixturenames:
        return environ
    return environ | {"CARINA_DIRECT_UPLOADS": "true", "CARINA_S3_PUBLIC_URL": f"http://127.0.0.1:{free_port()}"}


def test_the_command_line_says_so(server: Server, keys: Keys, folder: Path, settings: Settings) -> None:
    variables = {"CARINA_API_URL": server.url, "CARINA_API_KEY": keys.both}
    said = run(variables, "submit", str(folder))
    host = urlsplit(settings.s3_public_url).netloc
    assert f"The object store at http://{host} does not answer" in said.stderr.replace("\n", " ")
    assert "The files go through the API instead." in said.stderr
    assert said.stdout.count("accepted") >= 8, said.stdout
