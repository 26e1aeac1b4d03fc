"""What is handed out, by the address that clients reach us at: a public URL, or what trusted proxies say."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from pydantic import SecretStr

from shared.database import Database
from shared.settings import Settings
from shared.tables import AuditEvent
from tests.integration.conftest import Api, Keys
from tests.requirements import REPOSITORY
from tests.synthetic_dicom import make_dicom, make_image

Make = Callable[..., FlaskClient]


@pytest.fixture
def browser(make_api: Callable[[Settings], Api], settings: Settings) -> Make:
    """Make an API with these settings; return a client of it that keeps cookies."""
    plain = {"session_secret": SecretStr("s" * 32), "direct_uploads": False}
    return lambda **changed: make_api(settings.model_copy(update=plain | changed))._http


def urls(http: FlaskClient, keys: Keys, **headers: str) -> list[str]:
    """Every absolute URL that the API hands out."""
    said = {"Authorization": f"Bearer {keys.both}", **headers}
    image = make_dicom(make_image(), SeriesInstanceUID="1.2.3.1")
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + image + b"\r\n--b--\r\n"
    multipart = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    stored = http.post("/dicom-web/studies", data=body, headers=said | multipart).json
    found = http.get("/dicom-web/studies", headers=said).json
    (described,) = http.get("/dicom-web/studies/1.2.3/metadata", headers=said).json
    announced = {"files": [{"name": "a", "byte_count": 3, "sha256": "0" * 64}]}
    begun = http.post("/v1/submissions", json=announced, headers=said).json
    return [
        stored["00081190"]["Value"][0],
        stored["00081199"]["Value"][0]["00081190"]["Value"][0],
        found[0]["00081190"]["Value"][0],
        described["7FE00010"]["BulkDataURI"],
        begun["uploads"][0]["url"],
        http.get("/openapi.json", headers=said).json["servers"][0]["url"] + "/",
    ]


FORGED = {
    "Host": "evil.example",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
}


@pytest.mark.parametrize("proxies", [0, 1])
def test_with_a_public_url_no_header_changes_what_is_handed_out(browser: Make, keys: Keys, proxies: int) -> None:
    http = browser(public_url="https://ward.example/carina", trusted_proxies=proxies)
    for headers in ({}, FORGED, {"Host": "<script>"}):
        assert all(url.startswith("https://ward.example/carina/") for url in urls(http, keys, **headers))
        entered = http.get("/console", headers=headers)
        assert entered.location in ("https://ward.example/carina/console/", "/carina/console/")
        assert http.get("/", headers=headers).location == "/carina/console/studies"
    signed_in = http.post(
        "/console/sign-in", data={"key": keys.read}, headers=FORGED | {"Sec-Fetch-Site": "same-origin"}
    )
    assert signed_in.location == "/carina/console/studies"
    cookie = signed_in.headers["Set-Cookie"]
    assert cookie.startswith("__Secure-carina=")
    assert "; Secure; " in cookie
    assert "; Path=/carina; " in cookie


@pytest.mark.parametrize("prefix", ["/carina", "/carina/", "/a/b", "/a/b/"])
def test_a_prefix_is_part_of_what_is_handed_out(browser: Make, keys: Keys, prefix: str) -> None:
    http, bare = browser(trusted_proxies=1), prefix.rstrip("/")
    said = {"X-Forwarded-Prefix": prefix, "X-Forwarded-Host": "ward", "X-Forwarded-Proto": "https"}
    assert all(url.startswith(f"https://ward{bare}/") for url in urls(http, keys, **said))
    assert http.get("/", headers=said).location == f"{bare}/console/studies"
    asked = http.get("/console/studies?state=failed", headers=said)
    assert asked.location == f"{bare}/console/sign-in?next={bare}/console/studies%3Fstate%3Dfailed"
    page = http.get(asked.location.removeprefix(bare), headers=said).text
    form = {"key": keys.both, "next": f"{bare}/console/studies?state=failed"}
    answer = http.post("/console/sign-in", data=form, headers=said)
    assert answer.location == form["next"]
    assert f"; Path={bare}; " in answer.headers["Set-Cookie"]
    # The client here knows nothing of a proxy that removes the prefix, to which the cookie belongs.
    cookieless = http.application.test_client(use_cookies=False)
    page += cookieless.get("/console/studies", headers=said | {"Cookie": answer.headers["Set-Cookie"]}).text
    links = re.findall(r'(?:href|src|action)="([^"#]+)"', page)
    assert len(links) > 10
    assert all(link.startswith(f"{bare}/") for link in links), links
    # Another site's path is not gone to, nor our own without the prefix.
    for elsewhere in ("/console/studies?state=failed", "//evil.example/", f"{bare}/../x"):
        answer = http.post("/console/sign-in", data={"key": keys.read, "next": elsewhere}, headers=said)
        assert answer.location == f"{bare}/console/studies"


def test_a_prefix_is_believed_of_proxies_alone(browser: Make, keys: Keys) -> None:
    assert all(url.startswith("http://localhost/") for url in urls(browser(), keys, **{"X-Forwarded-Prefix": "/evil"}))


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Prefix": prefix}
        for prefix in (
            "//evil.example",
            "javascript:alert(1)",
            "/a<script>",
            "/a/../..",
            "/%0d%0aX:y",
            "carina",
            "/a b",
        )
    ]
    + [{"X-Forwarded-Host": host} for host in ("evil@ward", "a/b", "ward:0", "<script>", "::1")]
    + [{"X-Forwarded-Proto": "javascript"}, {"X-Forwarded-Port": "80@evil.example"}, {"X-Forwarded-Port": "x"}],
)
def test_what_no_url_can_be_made_of_is_refused(browser: Make, headers: dict[str, str]) -> None:
    http = browser(trusted_proxies=1)
    for path in ("/", "/console/sign-in", "/openapi.json", "/healthz"):
        answer = http.get(path, headers={"X-Forwarded-Host": "ward", **headers})
        assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
        assert answer.json["code"] == "bad_request"
        assert "evil" not in answer.text
        assert "Location" not in answer.headers


@pytest.mark.parametrize("said", ['/a"><script>evil', '"//evil', '"><script>evil', "/evil, "])
def test_an_unreadable_list_is_no_word_of_a_proxy(browser: Make, said: str) -> None:
    answer = browser(trusted_proxies=1).get("/", headers={"X-Forwarded-Prefix": said, "X-Forwarded-Host": said})
    assert answer.status_code == 400 or answer.location == "/console/studies"
    assert "evil" not in answer.text + str(answer.headers)


def test_a_proxys_port_is_believed(browser: Make, keys: Keys) -> None:
    said = {"X-Forwarded-Host": "ward", "X-Forwarded-Proto": "https"}
    http = browser(trusted_proxies=1)
    assert urls(http, keys, **said, **{"X-Forwarded-Port": "8443"})[-1] == "https://ward:8443/"
    assert urls(http, keys, **said, **{"X-Forwarded-Port": "443"})[-1] == "https://ward/"
    ipv6 = {**said, "X-Forwarded-Host": "[2001:db8::1]", "X-Forwarded-Port": "8443"}
    assert urls(http, keys, **ipv6)[-1] == "https://[2001:db8::1]:8443/"


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("203.0.113.9:5555", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("unknown", "127.0.0.1"),
    ],
)
def test_a_clients_address_is_recorded_without_its_port(
    browser: Make, keys: Keys, database: Database, said: str, address: str
) -> None:
    urls(browser(trusted_proxies=1), keys, **{"X-Forwarded-For": said})
    with database.begin() as session:
        assert set(session.scalars(sa.select(AuditEvent.remote_address))) == {address}


def test_scripts_ask_for_no_path_without_the_prefix() -> None:
    """`at`, `get` and `send` add what a proxy has put before; an address that none of them sees would miss it."""
    paths = list((REPOSITORY / "api/console/static/js").rglob("*.js"))
    bare = re.compile(r"""(fetch\(|open\(|EventSource\(|\b(href|src|action): |location\.assign\()[^()]*["'`]/""")
    assert len(paths) > 20
    assert {path.name: found.group() for path in paths if (found := bare.search(_code(path)))} == {}


def _code(path: Path) -> str:
    return re.sub(r"\bat\(", "AT ", path.read_text()).replace('AT "/', "").replace("AT `/", "")
