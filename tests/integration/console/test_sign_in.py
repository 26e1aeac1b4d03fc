"""Signing in to the console, and what its cookie lets a browser do."""

from collections.abc import Callable
from io import BytesIO

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from api.http.session import CSRF_HEADER
from shared.access.keys import prefix_of, revoke_key
from shared.database import Database
from shared.settings import Settings
from tests.integration.conftest import Api, Keys, png
from tests.integration.rows import add_model


@pytest.fixture
def browser(make_api: Callable[[Settings], Api], settings: Settings) -> FlaskClient:
    """A browser that keeps cookies, before a console that is on."""
    return make_api(settings.model_copy(update={"session_secret": SecretStr("s" * 32)}))._http


def sign_in(browser: FlaskClient, key: str, **form: str):
    return browser.post("/console/sign-in", data={"key": key, **form})


def csrf_token(browser: FlaskClient) -> str:
    page = browser.get("/console/no-such-page-but-signed-in").text
    assert 'name="csrf-token" content="' in page
    return page.split('name="csrf-token" content="')[1].split('"')[0]


def test_a_page_leads_to_the_sign_in_and_the_sign_in_back_to_the_page(browser: FlaskClient, keys: Keys) -> None:
    asked = browser.get("/console/studies?state=failed")
    assert asked.status_code == 302
    assert asked.location == "/console/sign-in?next=/console/studies%3Fstate%3Dfailed"
    answer = sign_in(browser, keys.read, next="/console/studies?state=failed")
    assert (answer.status_code, answer.location) == (303, "/console/studies?state=failed")
    assert browser.get("/console/studies?state=failed").status_code == 200


def test_the_cookie_is_for_this_site_only_and_holds_no_key(browser: FlaskClient, keys: Keys) -> None:
    cookie = sign_in(browser, keys.read).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert keys.read.split("_", 2)[2] not in cookie
    secure = browser.post("/console/sign-in", base_url="https://carina.test", data={"key": keys.read})
    assert secure.headers["Set-Cookie"].startswith("__Host-carina=")
    assert "Secure" in secure.headers["Set-Cookie"]


@pytest.mark.parametrize(
    "following",
    [
        "https://elsewhere.test/",
        "//elsewhere.test/",
        "/console/\\elsewhere",
        "/v1/x",
        "/console/\r\nX: y",
        "/console/\0",
    ],
)
def test_a_link_to_the_sign_in_leads_nowhere_else(browser: FlaskClient, keys: Keys, following: str) -> None:
    assert sign_in(browser, keys.read, next=following).location == "/console/studies"


def test_a_wrong_key_is_refused_and_said_to_be(browser: FlaskClient, keys: Keys) -> None:
    answer = sign_in(browser, "carina_0_0")
    assert answer.status_code == 401
    assert "The API key is not valid." in answer.text
    assert "Set-Cookie" not in answer.headers
    assert sign_in(browser, keys.submit).status_code == 403  # may not read


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another host of the same domain
        {"Origin": "https://elsewhere.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    ],
)
def test_another_sites_page_signs_nobody_in_or_out(browser: FlaskClient, keys: Keys, headers: dict[str, str]) -> None:
    refused = browser.post("/console/sign-in", data={"key": keys.read}, headers=headers)
    assert (refused.status_code, refused.headers.get("Set-Cookie")) == (403, None)
    assert "sent_from_elsewhere" in refused.text
    sign_in(browser, keys.read)
    assert browser.post("/console/sign-out", headers=headers).status_code == 403
    assert browser.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://localhost"}, {}]
)
def test_the_page_itself_signs_in(browser: FlaskClient, keys: Keys, headers: dict[str, str]) -> None:
    assert browser.post("/console/sign-in", data={"key": keys.read}, headers=headers).status_code == 303


def test_the_session_calls_what_its_key_may_and_changes_need_the_token(browser: FlaskClient, keys: Keys) -> None:
    sign_in(browser, keys.both)
    assert browser.get("/v1/models").status_code == 200
    form = {"data": {"files": (BytesIO(png()), "image.png")}}
    refused = browser.post("/v1/studies", **form)
    assert (refused.status_code, refused.json["code"]) == (403, "csrf_token_wrong")
    form = {"data": {"files": (BytesIO(png()), "image.png")}}
    taken = browser.post("/v1/studies", headers={CSRF_HEADER: csrf_token(browser)}, **form)
    assert taken.json["files"][0]["outcome"] == "accepted"
    assert browser.get("/v1/audit-events").json["code"] == "forbidden"


def test_a_session_ends_with_its_key_and_by_signing_out(browser: FlaskClient, keys: Keys, database: Database) -> None:
    sign_in(browser, keys.read)
    assert browser.post("/console/sign-out").status_code == 303
    assert browser.get("/v1/models").status_code == 401
    sign_in(browser, keys.train)
    with database.begin() as session:
        revoke_key(session, prefix_of(keys.train))
    assert browser.get("/v1/models").status_code == 401


def test_a_forged_cookie_is_nobody(browser: FlaskClient, keys: Keys) -> None:
    sign_in(browser, keys.read)
    cookie = browser.get_cookie("carina")
    assert cookie is not None
    browser.set_cookie("carina", cookie.value[:-2] + "xx")
    assert browser.get("/v1/models").status_code == 401


def test_without_a_secret_there_is_no_console(make_api: Callable[[Settings], Api], settings: Settings) -> None:
    http = make_api(settings.model_copy(update={"session_secret": SecretStr("")}))._http
    answer = http.get("/console/sign-in")
    assert answer.status_code == 503
    assert "console_off" in answer.text


def test_every_page_has_a_strict_policy_and_nothing_in_line(browser: FlaskClient, keys: Keys) -> None:
    for path in ("/console/sign-in", "/console/no-such-page"):
        answer = browser.get(path)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "<script>" not in answer.text
        assert "style=" not in answer.text


def test_a_page_that_crashes_says_so_in_the_consoles_own_frame(
    browser: FlaskClient, keys: Keys, database: Database
) -> None:
    sign_in(browser, keys.read)
    with database.begin() as session:
        add_model(session, "odd").card = {}  # no version of Carina writes such a card
    answer = browser.get("/console/studies")
    assert (answer.status_code, answer.mimetype) == (500, "text/html")
    assert "internal_error" in answer.text
    assert "Try again" in answer.text


def test_assets_are_kept_for_good_under_their_version_only(browser: FlaskClient) -> None:
    page = browser.get("/console/sign-in").text
    address = page.split('rel="stylesheet" href="')[1].split('"')[0]
    assert "immutable" in browser.get(address).headers["Cache-Control"]
    assert browser.get(address.replace(address.split("/")[3], "0" * 12)).headers["Cache-Control"] == "no-store"
    assert browser.get(address.replace("console.css", "../pages.py")).status_code == 404
