"""The description at `/openapi.json` is a valid OpenAPI 3.1 document that describes every operation completely."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

import api.contract
from api.contract.problems import Problem
from api.http.examples import NoExample, example_of
from deploy.document_routes import PAGE, describe, make_app, page
from shared.errors import CODES, PlainCode
from shared.training.recipes import config_of

#: Routes for people and for this description itself.
_UNDESCRIBED = ("/console", "/docs", "/openapi.json")
#: Texts of the description that are about how an operation is described, not about what it does.
_GENERATED = re.compile(r"(Needs a key with the scope `\w+`|Public: needs no key)\.|```sh.*```", re.DOTALL)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The description, of an API whose servers are nowhere: nothing is connected to for it."""
    return describe()


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
    served = {
        (method.lower(), re.sub(r"<(?:[^:<>]+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in make_app().url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule != "/" and not rule.rule.startswith(_UNDESCRIBED)
    }
    assert {(method, path) for method, path, _ in operations(document)} == served


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


def test_the_introduction_tells_what_all_operations_have_in_common(document: dict[str, Any]) -> None:
    introduction = document["info"]["description"]
    for subject in ("Keys", "Scopes", "Errors", "Paging", "Sending requests again", "Versions"):
        assert f"## {subject}\n" in introduction
    assert "Not a medical device." in introduction


def test_every_operation_has_a_summary_a_description_a_command_and_its_scope(document: dict[str, Any]) -> None:
    summaries = []
    for method, path, operation in operations(document):
        name = f"{method} {path}"
        summaries.append(operation["summary"])
        assert re.fullmatch(r"[A-Z].{3,79}(?<!\.)", operation["summary"]), name
        assert re.search(r"\w`?\.", _GENERATED.sub("", operation["description"])), f"{name} says nothing but a title"
        assert f"$CARINA_API_URL{path.partition('{')[0]}" in operation["description"], name
        if operation.get("security"):
            assert operation["x-scope"] in {"read", "submit", "train", "admin", "system"}, name
            assert f"Needs a key with the scope `{operation['x-scope']}`." in operation["description"], name
        else:
            assert "Public: needs no key." in operation["description"], name
    assert len(set(summaries)) == len(summaries)


def test_every_operation_lists_the_codes_of_its_errors(document: dict[str, Any]) -> None:
    examples = document["components"]["examples"]
    for method, path, operation in operations(document):
        listed: dict[str, str] = {}
        for status, response in operation["responses"].items():
            problem = response.get("content", {}).get("application/problem+json")
            if problem is None or status == "default":
                continue
            assert problem["examples"], (method, path, status)
            for code, reference in problem["examples"].items():
                assert reference == {"$ref": f"#/components/examples/{code}"}
                assert f"`{code}`" in response["description"]
                shown = Problem.model_validate(examples[code]["value"])
                assert (shown.code, str(shown.status)) == (code, status)
                listed[code] = status
        if operation.get("security"):
            common = {"unauthorized": "401", "forbidden": "403", "invalid_request": "422", "rate_limited": "429"}
            assert common.items() <= listed.items(), (method, path)
            assert listed.keys() >= {"database_unavailable", "server_busy", "internal_error"}
            assert ("not_found" in listed) >= ("{" in path), (method, path)


def test_every_error_of_a_request_belongs_to_an_operation(document: dict[str, Any]) -> None:
    """Console pages, and what is found before a route is known, are no operations."""
    elsewhere = {"console_off", "csrf_token_wrong", "sent_from_elsewhere", "too_many_connections", "bad_request"}
    elsewhere |= {"method_not_allowed", "length_required", "uri_too_long", "request_header_fields_too_large"}
    elsewhere |= {"not_implemented", "http_version_not_supported"}
    answered = set(document["components"]["examples"]) | elsewhere
    for code, entry in CODES.items():
        status = entry.status if isinstance(entry, PlainCode) else getattr(entry, "status", None)
        if isinstance(status, int):
            assert code in answered, f"no operation states {code}: mark its view with `may_raise`"


def _contract() -> dict[str, type[BaseModel]]:
    """The wire types by name."""
    for module in pkgutil.iter_modules(api.contract.__path__, "api.contract."):
        importlib.import_module(module.name)

    def below(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
        for subclass in kind.__subclasses__():
            yield subclass
            yield from below(subclass)

    return {kind.__name__: kind for kind in below(BaseModel) if kind.__module__.startswith(("api.contract", "shared."))}


def _bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What requests and good answers hold, by operation and media type."""
    for method, path, operation in operations(document):
        answers = [(status, answer) for status, answer in operation["responses"].items() if status.startswith("2")]
        for kind, body in (("request", operation.get("requestBody", {})), *answers):
            for media_type, content in body.get("content", {}).items():
                yield f"{method} {path} {kind}", media_type, content


def test_every_request_and_every_answer_has_an_example_that_fits(document: dict[str, Any]) -> None:
    components, models = {"components": document["components"]}, _contract()
    for name, media_type, content in _bodies(document):
        schema = {**content["schema"], **components}
        validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        assert [error.message for error in validator.iter_errors(content["example"])] == [], (name, media_type)
        if "$ref" in content["schema"]:
            models[content["schema"]["$ref"].rpartition("/")[2]].model_validate(content["example"])
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", []):
            validator = Draft202012Validator({**parameter["schema"], **components})
            assert [*validator.iter_errors(parameter["example"])] == [], (method, path, parameter["name"])
            assert parameter["in"] == "path" or parameter["description"], (method, path, parameter["name"])


def test_an_example_of_a_training_names_keys_that_a_training_has(document: dict[str, Any]) -> None:
    asked = document["paths"]["/v1/trainings"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert config_of(asked["recipe"], asked["config"]).epochs == asked["config"]["epochs"]


def test_a_field_without_an_example_is_noticed() -> None:
    with pytest.raises(NoExample, match=r"Star\.magnitude"):
        example_of({"$ref": "#/components/schemas/Star"}, {"Star": {"properties": {"magnitude": {"type": "number"}}}})


def test_the_page_lists_every_route(document: dict[str, Any]) -> None:
    made = page()
    assert PAGE.read_text() == made
    for method, path, _ in operations(document):
        assert f"| `{method.upper()}` | `{path}` |" in made
