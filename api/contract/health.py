"""Liveness, readiness and metrics of the API."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class DependencyState(BaseModel):
    """Whether a server that the API needs answers, and the error's code where it does not."""

    ok: bool
    code: str | None = None
    #: A sentence that says what to do.
    detail: str | None = None


class Readiness(BaseModel):
    """Whether the API can take work."""

    status: Literal["ready", "not_ready"]
    dependencies: dict[str, DependencyState]
    #: Those without which the API takes work, but work goes on slower.
    degraded: list[str] = []
