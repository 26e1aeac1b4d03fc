"""Blueprints and answers of all resources."""

from typing import Any

from flask import Response, g
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from api.contract.problems import PROBLEMS


def resource(name: str, *, tag: str | None = None, kind: type[APIBlueprint] = APIBlueprint) -> APIBlueprint:
    """Return a blueprint whose routes need a key and answer errors as problems; `tag` groups it in the description."""
    return kind(
        name,
        __name__,
        abp_tags=[Tag(name=tag or name)],
        abp_security=[{"bearer": []}, {"basic": []}],
        abp_responses={**PROBLEMS},
    )


def file_answer(media_type: str, description: str, example: str | dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe an answer without a model: bytes, or text or a JSON object with an example."""
    kind = {"type": "object"} if isinstance(example, dict) else {"type": "string"}
    content = {"schema": kind | {"format": "binary"}} if example is None else {"schema": kind, "example": example}
    return {"description": description, "content": {media_type: content}}


def fields_of(answer: type[BaseModel], row: object, *others: str) -> dict[str, Any]:
    """Return the fields of an answer that a row has under the same names: all but `others`."""
    return {name: getattr(row, name) for name in answer.model_fields.keys() - set(others)}


def as_json(answer: BaseModel, status: int = 200) -> Response:
    """Return a model as a JSON response. The audit row of a change records the model's `id`."""
    g.answer_id = getattr(answer, "id", None)
    return Response(answer.model_dump_json(), status, content_type="application/json")
