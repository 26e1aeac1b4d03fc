"""Error answers, after RFC 9457, and what every operation may answer."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from pydantic import BaseModel


class InvalidParameter(BaseModel):
    """One parameter that is not valid, and why."""

    name: str
    detail: str


class Problem(BaseModel):
    """An error, after RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    #: Stable; a program goes by this.
    code: str
    #: Of `limit_exceeded`: the setting that is exceeded.
    limit: str | None = None
    #: What is wrong with which parameter, where that is known.
    errors: list[InvalidParameter] | None = None
    #: Of `not_found` and `ambiguous_name`: the ids of things that may have been meant.
    candidates: list[UUID] | None = None


#: The body of an error answer.
PROBLEM = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
#: What every route may answer.
PROBLEMS: dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None] = {
    "422": {"description": "A parameter is not valid.", **PROBLEM},
    "default": {"description": "Any other error.", **PROBLEM},
}
