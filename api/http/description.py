"""Completes the description that flask-openapi3 makes: texts, scopes, codes of errors and examples of every operation.

Everything follows from the views: the docstring is summary and description, the marks (`requires`, `idempotent`,
`takes_uploads`, `may_raise`) say which errors an operation answers, and `examples` reads the schemas.
"""

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from flask_openapi3.openapi import OpenAPI

from api.contract.problems import PROBLEM, InvalidParameter, Problem
from api.http.auth import is_public
from api.http.client_socket import BodyTooSlow
from api.http.errors import STATUS_CODES, STORE_ERRORS, Answerable, entry_of, status_of
from api.http.examples import VALUES, example_of
from api.http.idempotency import HEADER, REPLAYED, IdempotencyKeyInUse, IdempotencyKeyReused
from api.http.json_body import MalformedJson
from api.http.limits import RateLimited
from api.http.multipart import FIELD
from api.http.thread_shares import ServerBusy, TooManyAtATime
from shared.access.quotas import QuotaExceeded
from shared.database.lookup import KINDS
from shared.errors import (
    CarinaError,
    DatabaseUnavailable,
    Forbidden,
    InvalidRequest,
    KeyExpired,
    LimitExceeded,
    NotFound,
    PlainCode,
    SchemaOutdated,
    Unauthorized,
    UnsupportedMediaType,
    UploadCutShort,
)
from shared.suggestions import AmbiguousName

_WITH_KEY: tuple[Answerable, ...] = (
    *(Unauthorized, KeyExpired, Forbidden, InvalidRequest, CarinaError),
    *(RateLimited, TooManyAtATime, ServerBusy, DatabaseUnavailable, SchemaOutdated),
)
_WITH_ID = (NotFound, AmbiguousName)
_WITH_BODY: tuple[Answerable, ...] = (UploadCutShort, BodyTooSlow, STATUS_CODES[413])
_WITH_JSON = (MalformedJson, UnsupportedMediaType)
_WITH_UPLOAD = (LimitExceeded, QuotaExceeded, *STORE_ERRORS)
_WITH_IDEMPOTENCY = (IdempotencyKeyReused, IdempotencyKeyInUse)
_IDEMPOTENCY = {
    "name": HEADER,
    "in": "header",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$", "maxLength": 255},
    "description": "Makes it safe to send the request again: for 48 hours the same key with the same route and body "
    f"gets the first answer, marked `{REPLAYED}: true`, and nothing is done twice.",
}
#: Media types of JSON, whose examples come from the schema.
_JSON = ("application/json", "application/dicom+json")


def complete(app: OpenAPI) -> None:
    """Complete the description of every operation of `app`."""
    document: dict[str, Any] = app.api_doc
    examples = document["components"].setdefault("examples", {})
    for rule, method, operation in _operations(app, document["paths"]):
        view = app.view_functions[rule.endpoint]
        _describe(operation, view)
        for error in _add_errors(operation, rule.arguments, view):
            entry = entry_of(error)
            examples[entry.code] = _example_of_error(entry)
        _add_examples(operation, document["components"]["schemas"])
        operation["description"] += f"\n\n```sh\n{_command(operation, method, operation.pop('x-path'))}\n```"


def _operations(app: OpenAPI, paths: Mapping[str, Any]) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Yield each rule with its method and its operation in the description."""
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:[^:<>]+:)?(\w+)>", r"{\1}", rule.rule)
        item = paths.get(path, {})
        for method in item.keys() & {name.lower() for name in rule.methods or ()}:
            item[method]["x-path"] = path
            yield rule, method, item[method]


def _describe(operation: dict[str, Any], view: Callable[..., object]) -> None:
    summary, _, description = inspect.cleandoc(view.__doc__ or "").partition("\n\n")
    scope = None if is_public(view) else str(getattr(view, "access", None))
    needs = f"Needs a key with the scope `{scope}`." if scope else "Public: needs no key."
    operation["summary"] = " ".join(summary.split()).rstrip(".")
    operation["description"] = f"{description}\n\n{needs}"
    if scope:
        operation["x-scope"] = scope


def _add_errors(operation: dict[str, Any], arguments: set[str], view: Callable[..., object]) -> list[Answerable]:
    """List the codes of each status, and return the errors."""
    errors = list(dict.fromkeys(_errors_of(operation, arguments, view)))
    answers: defaultdict[int, list[str]] = defaultdict(list)
    for entry in map(entry_of, errors):
        answers[status_of(entry)].append(entry.code)
    if hasattr(view, "idempotent"):
        operation.setdefault("parameters", []).append(_IDEMPOTENCY)
    responses = operation["responses"]
    if is_public(view):
        responses.pop("422", None)
    for status, codes in sorted(answers.items()):
        response = responses.setdefault(str(status), {"description": HTTPStatus(status).phrase + "."})
        listed = ", ".join(f"`{code}`" for code in codes)
        response["description"] += f" {'Code' if len(codes) == 1 else 'Codes'}: {listed}."
        examples = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
        (media_type, content), *_ = PROBLEM["content"].items()
        response.setdefault("content", {})[media_type] = {**content, "examples": examples}
    return errors


def _errors_of(operation: dict[str, Any], arguments: set[str], view: Callable[..., object]) -> Iterator[Answerable]:
    yield from () if is_public(view) else _WITH_KEY
    if any(name.removesuffix("_id") in KINDS for name in arguments):
        yield from _WITH_ID
    elif arguments:
        yield NotFound
    if "requestBody" in operation:
        yield from _WITH_BODY
        if "application/json" in operation["requestBody"]["content"]:
            yield from _WITH_JSON
    if hasattr(view, "takes_uploads"):
        yield from _WITH_UPLOAD
    if hasattr(view, "idempotent"):
        yield from _WITH_IDEMPOTENCY
    yield from getattr(view, "errors", ())


def _example_of_error(entry: type[CarinaError] | PlainCode) -> dict[str, Any]:
    """The problem document of an error, under the meaning of its code."""
    meaning = entry.meaning if isinstance(entry, PlainCode) else entry.meaning()
    status = status_of(entry)
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=meaning,
        code=entry.code,
        limit="max_upload_bytes" if entry is LimitExceeded else None,
        errors=[InvalidParameter(**_invalid())] if entry is InvalidRequest else None,
        candidates=[VALUES["study_id"]] if entry is AmbiguousName else None,
    )
    return {"summary": meaning, "value": problem.model_dump(mode="json", exclude_none=True)}


def _invalid() -> dict[str, str]:
    return {field: VALUES[f"InvalidParameter.{field}"] for field in ("name", "detail")}


def _add_examples(operation: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        parameter["example"] = example_of(parameter["schema"], schemas, parameter["name"])
    bodies = [operation["requestBody"]] if "requestBody" in operation else []
    answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    for content in [each for one in (*bodies, *answers) for each in one.get("content", {}).items()]:
        media_type, described = content
        if "example" in described:
            continue
        if described["schema"].get("format") == "binary":
            described["example"] = f"(bytes of {media_type})"
        elif media_type == "multipart/form-data":
            described["example"] = {FIELD: ["(bytes of chest.dcm)"]}
        elif media_type in _JSON:
            described["example"] = example_of(described["schema"], schemas)


def _command(operation: dict[str, Any], method: str, path: str) -> str:
    """The request of the examples, as a command of curl."""
    values = {each["name"]: (each["in"], each["example"]) for each in operation.get("parameters", ())}
    path = re.sub(r"{(\w+)}", lambda found: str(values[found[1]][1]), path)
    required = {each["name"] for each in operation.get("parameters", ()) if each.get("required")}
    query = {name: value for name, (place, value) in values.items() if place == "query" and name in required}
    url = f"$CARINA_API_URL{path}" + (f"?{urlencode(query, doseq=True)}" if query else "")
    words = ["curl", *(["-X", method.upper()] if method != "get" else []), f'"{url}"']
    if "x-scope" in operation:
        words += ["-H", '"Authorization: Bearer $CARINA_API_KEY"']
    for media_type, described in list(operation.get("requestBody", {}).get("content", {}).items())[:1]:
        if media_type == "multipart/form-data":
            words += ["-F", f"{FIELD}=@chest.dcm"]
        elif media_type == "application/json":
            words += ["--json", f"'{json.dumps(described['example'])}'"]
        elif media_type.startswith("multipart/related"):
            words += ["-H", "'Content-Type: application/dicom'", "--data-binary", "@chest.dcm"]
        else:
            words += ["-H", f"'Content-Type: {media_type}'", "--data-binary", "@chest.dcm"]
    return " ".join(words)
