"""Odd values, each in each parameter, header and field of each operation: the request's fault, and never a crash."""

import copy
import json
import os
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from api.http.json_body import MalformedJson, read_json
from api.http.services import NAME
from shared.bounded import MAX_DEPTH, MAX_INT8, MAX_ITEMS, MAX_STRING_CHARACTERS
from shared.errors import InvalidRequest
from shared.settings import Settings
from tests.integration.conftest import Keys, Server, png
from tests.unit.api.http.test_openapi import operations

#: Each place gets every so many of the values, beginning with another one; `make fuzz` sends all of them.
STRIDE = 1 if int(os.environ.get("CASES", "3")) > 10 else 6

#: Bodies as bytes.
BODIES = {
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep lists in an object": b'{"config":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "an encoded surrogate": b'{"name": "\xed\xa0\x80"}',
    "half a surrogate pair": b'{"name": "\\ud800", "cron": "\\udfff"}',
    "half a surrogate pair as a key": b'{"\\ud800": 1}',
    "NUL": b'{"name": "\\u0000"}',
    "NaN": b'{"priority": NaN, "wait": Infinity, "min_score": -Infinity}',
    "a huge whole number": b'{"priority": ' + b"9" * 5000 + b"}",
    "a huge number": b'{"priority": 1e999, "min_score": -1e999}',
    "a key twice": b'{"name": "a", "name": "b"}',
    "a list": b"[1, 2]",
    "a string of JSON": json.dumps('{"name": "a"}').encode(),
    "null": b"null",
    "nothing": b"",
    "half": b'{"name": ',
    "many values": json.dumps({"config": {"milestones": [0] * 30_000}}).encode()[:60_000] + b"]}}",
    "many keys": json.dumps({f"k{number}": 0 for number in range(3000)}).encode(),
}
#: Values of fields; as strings also of parameters.
VALUES: list[Any] = [
    "",
    " ",
    "\0",
    "a\r\nSet-Cookie: b=c",
    "\x7f\x85\u2028",
    "\ud800",
    "=1+1",
    "x" * 3000,
    "(a+)+$" + "a" * 40 + "!",
    "../../etc/passwd",
    "%00%0d%0a",
    "{0.__class__}",
    "0000-00-00",
    "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "9999-12-31T23:59:59-14:00",
    "{12345678-1234-5678-1234-567812345678}",
    "urn:uuid:12345678123456781234567812345678",
    "nan",
    "-inf",
    "1e999",
    "9" * 5000,
    -(2**31) - 1,
    2**31,
    2**63,
    -(2**63) - 1,
    1e308,
    True,
    None,
    [],
    {},
    [[]],
    ["\0"],
    {"\0": 1},
]
HEADERS = {
    "Accept": ["\xff", "*/*;q=nan", "a" * 5000, ";;;,,,", "multipart/related; type=\x80"],
    "Content-Type": ["\xff", "application/json; charset=nope", "multipart/form-data; boundary=\x80", "/"],
    "Authorization": [
        "Bearer \x00",
        "Basic \xff",
        "Basic AA==",
        "Bearer " + "a" * 5000,
        "Bearer carina_\x01_\x01",
        "Digest x",
    ],
    "Cookie": ["carina=\x00", "carina=" + "a" * 5000, "carina=\xff.\xff.\xff", ";;;=;"],
    "Idempotency-Key": ["\x80", "a" * 300, ""],
    "If-None-Match": ["\xff", '"' * 500, "W/", "*"],
    "If-Modified-Since": ["0000", "Mon, 99 Foo 10000"],
    "Last-Event-ID": ["\xff", "9" * 5000],
    "Range": ["bytes=-", "bytes=9" + "9" * 400 + "-", "bytes=0-0," * 900, "\xff"],
    "X-CSRF-Token": ["\xff"],
    "X-Forwarded-For": ["\xff", "a" * 5000],
    "X-Forwarded-Host": ["\xff", "a b"],
    "X-Forwarded-Prefix": ["\xff", "//x"],
    "X-Forwarded-Proto": ["\xff"],
    "X-Request-Id": ["\xff", "a" * 5000],
    "Origin": ["\xff"],
}


class Caller:
    """Calls the application, and looks at what every answer has to be."""

    def __init__(self, http: FlaskClient, key: str) -> None:
        self._http, self._key = http, key
        self.count = self._turn = 0
        self.wrong: list[str] = []

    def some(self, values: list[Any]) -> list[Any]:
        """Those of the values whose turn it is."""
        self._turn += 1
        return values[self._turn % min(STRIDE, len(values)) :: STRIDE]

    def __call__(self, method: str, path: str, why: object, headers: dict[str, str] | None = None, **sent: Any) -> int:
        given = {"Authorization": f"Bearer {self._key}", **(headers or {})}
        self.count += 1
        response = self._http.open(path, method=method.upper(), headers=given, **sent)
        status, kind = response.status_code, response.content_type or ""
        if status >= 500 and path not in ("/readyz",):
            self.wrong.append(f"{status} {method} {path[:80]} {str(why)[:80]!r}")
        elif status >= 400 and not (kind == "application/problem+json" and response.get_json()["code"]):
            self.wrong.append(f"{status} without a code: {method} {path[:80]} {str(why)[:80]!r}")
        response.close()
        return status


@pytest.fixture
def caller(settings: Settings, keys: Keys) -> Iterator[Caller]:
    app = create_app(settings)
    yield Caller(app.test_client(), keys.admin)
    app.extensions[NAME].close()


def document(caller: Caller) -> dict[str, Any]:
    return caller._http.get("/openapi.json").get_json()


def ids(caller: Caller) -> dict[str, str]:
    """Values of path parameters that exist, so that odd ones beside them are looked at."""
    key = {"Authorization": f"Bearer {caller._key}"}
    sent = caller._http.post("/v1/studies", headers=key, data={"files": (BytesIO(png()), "a.png")})
    file = sent.get_json()["files"][0]
    made = caller._http.post("/v1/submissions", headers=key, json={"files": [{"byte_count": 1, "sha256": "0" * 64}]})
    found = {name: file[name] for name in ("study_id", "image_id", "job_id")}
    return found | {"submission_id": made.get_json()["submission"]["id"], "number": "0"}


def path_of(template: str, values: dict[str, str]) -> str:
    for name in [part.partition("}")[0] for part in template.split("{")[1:]]:
        value = values.get(
            name, "1.2" if name.endswith("_uid") else "1" if name in ("frames", "attempt") else str(UUID(int=7))
        )
        template = template.replace("{" + name + "}", quote(str(value), safe="", errors="surrogatepass"))
    return template


def example(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """The least value that a schema describes, with every property."""
    while "$ref" in schema:
        schema = root["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return example(schema[key][0], root)
    return example_of_type(schema, root)


def example_of_type(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    match schema.get("type"):
        case "object":
            return {name: example(inner, root) for name, inner in schema.get("properties", {}).items()}
        case "array":
            return [example(schema.get("items", {}), root) for _ in range(schema.get("minItems", 1))]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case "string":
            by_format = {"uuid": str(UUID(int=7)), "date-time": "2026-01-01T00:00:00Z"}
            return by_format.get(schema.get("format", ""), "a" * schema.get("minLength", 1))
    return None


def places(value: Any, *before: Any) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside of another."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*before, key)
        yield from places(each, *before, key)


def with_value(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(body)
    target = changed
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return changed


def json_operations(root: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for method, path, operation in operations(root):
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            yield method, path, content["application/json"]["schema"]


def test_odd_bodies_are_refused_by_every_operation(caller: Caller) -> None:
    known = ids(caller)
    found = list(json_operations(document(caller)))
    assert len(found) > 10
    for method, template, _ in found:
        path = path_of(template, known)
        for name, body in caller.some(list(BODIES.items())):
            status = caller(method, path, name, data=body, content_type="application/json")
            assert 400 <= status < 500, (method, path, name, status)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", ""):
            status = caller(method, path, kind, data=b"{}", content_type=kind)
            assert 400 <= status < 500, (method, path, kind, status)
    assert caller.wrong == []


def test_odd_values_in_every_field_of_every_body(caller: Caller) -> None:
    known, root = ids(caller), document(caller)
    for method, template, schema in json_operations(root):
        path, body = path_of(template, known), example(schema, root)
        for place in places(body):
            for value in caller.some(VALUES):
                sent = json.dumps(with_value(body, place, value)).encode()
                caller(method, path, (place, value), data=sent, content_type="application/json")
    assert caller.count > 500
    assert caller.wrong == []


def test_odd_values_in_every_parameter_of_every_operation(caller: Caller) -> None:
    known, root = ids(caller), document(caller)
    words = [str(value) for value in VALUES if value is not None and not isinstance(value, list | dict)]
    for method, template, operation in operations(root):
        if method == "delete" or template.endswith(("/cancel", "/complete")):
            continue  # what is known is needed on
        body = {"data": b"{}", "content_type": "application/json"} if "requestBody" in operation else {}
        for parameter in operation.get("parameters", []):
            name = parameter["name"]
            for word in caller.some(words):
                shown = quote(word, safe="", errors="surrogatepass")
                if parameter["in"] == "path":
                    # A path of 3000 characters is refused by the server before any route sees it.
                    caller(method, path_of(template, known | {name: word}), (name, word), **body)
                elif parameter["in"] == "query":
                    caller(method, f"{path_of(template, known)}?{name}={shown}", (name, word), **body)
        for odd in caller.some(
            ["?%00=1", "?a%0d%0a=1", "?%ff=%fe", "?=", "?&&&=", "?" + "a=1&" * 1500, "?" + "id=" + "x" * 3000]
        ):
            caller(method, path_of(template, known) + odd, odd, **body)
    assert caller.count > 300
    assert caller.wrong == []


def test_odd_headers_are_no_operations_undoing(caller: Caller) -> None:
    known, root = ids(caller), document(caller)
    for method, template, operation in operations(root):
        if method == "delete" or template.endswith(("/cancel", "/complete")):
            continue
        body = {"data": b"{}"} if "requestBody" in operation else {}
        for name, values in HEADERS.items():
            for value in caller.some(values):
                caller(
                    method,
                    path_of(template, known),
                    (name, value),
                    {"Content-Type": "application/json", name: value},
                    **body,
                )
    assert caller.wrong == []


def test_odd_values_on_every_page_of_the_console(settings: Settings, keys: Keys) -> None:
    app = create_app(settings.model_copy(update={"session_secret": settings.session_secret}))
    http = app.test_client()
    pages = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/console") and "GET" in rule.methods]
    assert pages
    names = ("next", "from", "on", "before", "after", "q", "state", "finding", "since", "until", "limit", "page")
    for rule in pages:
        path = rule.rule
        for argument in rule.arguments:
            converter = next(text for text in path.split("<") if text.split(">")[0].split(":")[-1] == argument).split(
                ">"
            )[0]
            path = path.replace(f"<{converter}>", str(UUID(int=7)))
        for turn, name in enumerate(names):
            for value in ("\0", "a\r\nb", "\ud800", "x" * 3000, "9" * 3000, "{12345678-1234-5678-1234-567812345678}")[
                turn % min(STRIDE, 6) :: STRIDE
            ]:
                shown = quote(value, safe="", errors="surrogatepass")
                headers = {"Authorization": f"Bearer {keys.admin}"}
                with http.get(f"{path}?{name}={shown}", headers=headers) as response:
                    assert response.status_code < 500 or response.get_json()["code"] == "console_off", (
                        path,
                        name,
                        value,
                    )
    app.extensions[NAME].close()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_reader_refuses_odd_bodies(body: bytes) -> None:
    if body == BODIES["many keys"] or len(body) > 0:
        with pytest.raises((MalformedJson, InvalidRequest)):
            read_json(body)


def test_the_reader_takes_what_is_just_within_bounds() -> None:
    deepest: Any = 1
    for _ in range(MAX_DEPTH - 2):
        deepest = [deepest]
    for value in (deepest, "x" * MAX_STRING_CHARACTERS, list(range(MAX_ITEMS)), MAX_INT8, "Zoë 肺 🫁", 1.5, None, True):
        assert read_json(json.dumps({"a": value}).encode()) == {"a": value}
        assert read_json(b"\xef\xbb\xbf" + json.dumps({"a": value}, ensure_ascii=False).encode()) == {"a": value}
    for value in ([deepest], ["x" * (MAX_STRING_CHARACTERS + 1)], [0] * (MAX_ITEMS + 1), MAX_INT8 + 1):
        with pytest.raises(InvalidRequest):
            read_json(json.dumps({"a": [value]}).encode())


def test_a_command_ends_odd_values_in_one_line(
    carina: Callable[..., str], server: Server, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARINA_API_URL", server.url)
    monkeypatch.setenv("CARINA_API_KEY", keys.admin)
    odd, large = "a\udcff", str(10**30)  # a byte that is not UTF-8, as the shell hands it on
    for arguments in (
        ("studies", "--finding", odd),
        ("webhook", "create", f"https://ward.example/{odd}"),
        ("schedule", "create", odd, "--cron", "0 3 * * 0", "--dataset", "d"),
        ("schedule", "create", "a", "--cron", "1," * 100_000 + "1 * * * *", "--dataset", "d"),
        ("schedule", "create", "a", "--cron", "0 3 * * 0", "--time-zone", "../../etc/passwd", "--dataset", "d"),
        ("dataset", "show", odd),
        ("train", "--dataset", "d", "--epochs", large),
        ("key", "create", odd),
        ("key", "create", "a", "--files-per-day", large),
    ):
        said = run_to_its_end(carina, arguments)
        assert "internal_error" not in said, (arguments[:2], said)
        assert "Traceback" not in said, (arguments[:2], said)


def run_to_its_end(carina: Callable[..., str], arguments: Sequence[str]) -> str:
    """What a command prints that is refused, by whichever code it ends."""
    for code in (2, 1):
        try:
            return carina(*arguments, code=code)
        except AssertionError as exc:
            said = str(exc)
    return said
