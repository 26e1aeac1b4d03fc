"""Liveness, readiness and metrics of the API."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class DependencyState(BaseModel):
    """Whether a server that the API needs answers, and the error code if it does not."""

    ok: bool
    code: str | None = None
    #: A sentence with advice.
    detail: str | None = None


class Readiness(BaseModel):
    """Whether the API can take work."""

    status: Literal["ready", "not_ready"]
    dependencies: dict[str, DependencyState]
    #: Dependencies that fail, without which the API takes work, but processes it more slowly.
    degraded: list[str] = []
