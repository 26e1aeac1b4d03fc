"""The description at `/openapi.json` names every route, and is a valid OpenAPI 3.1 document."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.app import create_app
from shared.settings import Settings

_STUDY = "/dicom-web/studies/{study_uid}"
_SERIES = f"{_STUDY}/series/{{series_uid}}"
_INSTANCE = f"{_SERIES}/instances/{{instance_uid}}"
ROUTES = {
    ("post", "/v1/studies"),
    ("get", "/v1/studies"),
    ("get", "/v1/jobs"),
    ("get", "/v1/studies/{study_id}"),
    ("delete", "/v1/studies/{study_id}"),
    ("post", "/v1/studies/{study_id}/jobs"),
    ("get", "/v1/studies/{study_id}/findings"),
    ("get", "/v1/images/{image_id}/rendition.png"),
    ("get", "/v1/images/{image_id}/overlay.png"),
    ("get", "/v1/images/{image_id}/reviews"),
    ("post", "/v1/images/{image_id}/reviews"),
    ("post", "/v1/images/{image_id}/reviews/undo"),
    ("post", "/v1/images/{image_id}/reviews/redo"),
    ("get", "/v1/jobs/{job_id}"),
    ("post", "/v1/jobs/{job_id}/cancel"),
    ("post", "/v1/jobs/retry"),
    ("get", "/v1/queue"),
    ("get", "/v1/queue/history"),
    ("get", "/v1/queue/events"),
    ("get", "/v1/models"),
    ("post", "/v1/models/{model_id}/promote"),
    ("post", "/v1/models/rollback"),
    ("get", "/v1/datasets"),
    ("get", "/v1/datasets/{dataset_id}"),
    ("post", "/v1/datasets"),
    ("get", "/v1/datasets/{dataset_id}/coco"),
    ("get", "/v1/datasets/{dataset_id}/failures"),
    ("post", "/v1/datasets/{dataset_id}/cancel"),
    ("post", "/v1/trainings"),
    ("get", "/v1/trainings"),
    ("get", "/v1/trainings/{training_id}"),
    ("get", "/v1/trainings/{training_id}/points"),
    ("get", "/v1/trainings/{training_id}/log"),
    ("get", "/v1/trainings/{training_id}/events/{attempt}"),
    ("post", "/v1/trainings/{training_id}/cancel"),
    ("post", "/v1/evaluations"),
    ("get", "/v1/evaluations"),
    ("get", "/v1/evaluations/{evaluation_id}"),
    ("get", "/v1/evaluations/{evaluation_id}/report"),
    ("get", "/v1/evaluations/{evaluation_id}/detections"),
    ("post", "/v1/evaluations/{evaluation_id}/cancel"),
    ("get", "/v1/schedules"),
    ("post", "/v1/schedules"),
    ("get", "/v1/schedules/{schedule_id}"),
    ("patch", "/v1/schedules/{schedule_id}"),
    ("delete", "/v1/schedules/{schedule_id}"),
    ("post", "/v1/schedules/{schedule_id}/run"),
    ("post", "/v1/gate-decisions"),
    ("get", "/v1/gate-decisions"),
    ("get", "/v1/gate-decisions/{decision_id}"),
    ("post", "/v1/submissions"),
    ("get", "/v1/submissions"),
    ("get", "/v1/submissions/{submission_id}"),
    ("get", "/v1/submissions/{submission_id}/events"),
    ("post", "/v1/submissions/{submission_id}/files"),
    ("get", "/v1/submissions/{submission_id}/uploads"),
    ("put", "/v1/submissions/{submission_id}/files/{number}/content"),
    ("post", "/v1/submissions/{submission_id}/arrived"),
    ("post", "/v1/submissions/{submission_id}/complete"),
    ("get", "/v1/submissions/{submission_id}/manifest"),
    ("post", "/v1/submissions/{submission_id}/retry"),
    ("post", "/v1/submissions/{submission_id}/cancel"),
    ("get", "/v1/audit-events"),
    ("get", "/v1/webhooks"),
    ("post", "/v1/webhooks"),
    ("get", "/v1/webhooks/{webhook_id}"),
    ("patch", "/v1/webhooks/{webhook_id}"),
    ("delete", "/v1/webhooks/{webhook_id}"),
    ("post", "/v1/webhooks/{webhook_id}/test"),
    ("get", "/v1/webhooks/{webhook_id}/deliveries"),
    ("post", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"),
    ("post", "/dicom-web/studies"),
    ("post", "/dicom-web/studies/{study_uid}"),
    ("get", "/dicom-web/studies"),
    ("get", "/dicom-web/series"),
    ("get", "/dicom-web/instances"),
    *(("get", f"{_STUDY}{rest}") for rest in ("", "/metadata", "/series", "/instances")),
    *(("get", f"{_SERIES}{rest}") for rest in ("", "/metadata", "/instances")),
    *(("get", f"{_INSTANCE}{rest}") for rest in ("", "/metadata", "/frames/{frames}", "/bulkdata")),
    *(
        ("get", f"{thing}/{picture}")
        for thing in (_STUDY, _SERIES, _INSTANCE, f"{_INSTANCE}/frames/{{frames}}")
        for picture in ("rendered", "thumbnail")
    ),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}


@pytest.fixture
def document() -> dict[str, Any]:
    """The description, of an API whose servers are nowhere: nothing is connected to for it."""
    settings = Settings(
        database_url="postgresql://nobody@127.0.0.1:1/x",
        redis_url="redis://127.0.0.1:1/0",
        s3_endpoint_url="http://127.0.0.1:1",
        s3_access_key_id="x",
        s3_secret_access_key="x",
    )
    answer = create_app(settings).test_client().get("/openapi.json")
    assert answer.status_code == 200
    return answer.get_json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of the document."""
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from nodes(child)


def test_every_route_is_described(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert {(method, path) for method, path, _ in operations(document)} == ROUTES


def test_every_operation_declares_its_path_its_answers_and_its_key(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for _, path, operation in operations(document):
        declared = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        assert operation["summary"]
        assert any(status.startswith("20") for status in operation["responses"])
        if path in ("/healthz", "/readyz"):
            assert "security" not in operation
        else:
            assert operation["security"] == [{"bearer": []}, {"basic": []}]
            assert "application/problem+json" in operation["responses"]["default"]["content"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = [node["$ref"] for node in nodes(document) if "$ref" in node]
    assert references
    for reference in references:
        target = document
        for name in reference.removeprefix("#/").split("/"):
            target = target[name]


def test_every_schema_is_a_json_schema(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def requested(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of what requests hold, with the name of where it stands."""
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", []):
            yield from inside(f"{method} {path} {parameter['name']}", parameter["schema"], document)
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {"schema": {}})
        yield from inside(f"{method} {path}", body["schema"], document)


def inside(name: str, schema: dict[str, Any], document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and all that it holds."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = document["components"]["schemas"][name]
    yield name, schema
    for key in ("items", "prefixItems", "anyOf", "oneOf", "allOf"):
        inner = schema.get(key, [])
        for each in inner if isinstance(inner, list) else [inner]:
            yield from inside(name, each, document)
    for key, inner in schema.get("properties", {}).items():
        yield from inside(f"{name}.{key}", inner, document)


def test_everything_that_a_request_holds_is_bounded(document: dict[str, Any]) -> None:
    unbounded = []
    for name, schema in requested(document):
        match schema.get("type"):
            case "string":
                is_bounded = schema.keys() & {"maxLength", "enum", "const", "format"}
            case "integer":
                has_end = schema.keys() & {"maximum", "exclusiveMaximum", "const"}
                is_bounded = has_end and schema.keys() & {"minimum", "exclusiveMinimum", "const"}
            case "array":
                is_bounded = "maxItems" in schema
            case "object":
                is_bounded = "maxProperties" in schema or schema.get("additionalProperties") is False
            case _:
                continue
        if not is_bounded:
            unbounded.append((name, schema))
    assert not unbounded, "\n".join(map(str, unbounded))
