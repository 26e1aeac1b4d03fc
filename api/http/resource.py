"""What all resources' blueprints have in common."""

from flask import Response, g
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from api.contract.problems import PROBLEMS


def resource(name: str, *, tag: str | None = None, kind: type[APIBlueprint] = APIBlueprint) -> APIBlueprint:
    """Return a blueprint whose routes take a key and answer errors as problems; `tag` groups it with others."""
    return kind(
        name,
        __name__,
        abp_tags=[Tag(name=tag or name)],
        abp_security=[{"bearer": []}, {"basic": []}],
        abp_responses={**PROBLEMS},
    )


def as_json(answer: BaseModel, status: int = 200) -> Response:
    """Return a model as a JSON response, with times in UTC; the audit row of a change names its `id`."""
    g.answer_id = getattr(answer, "id", None)
    return Response(answer.model_dump_json(), status, content_type="application/json")
