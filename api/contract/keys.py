"""Requests and answers about API keys."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from shared.bounded import MAX_INT8, Bounded
from shared.vocabulary.states import Scope

_Count = Annotated[int, Field(ge=1, le=MAX_INT8)]


class KeyPath(Bounded):
    """Identifies a key."""

    prefix: str = Field(max_length=100, description="The public part of the key. The list of keys shows it.")


class KeyRequest(Bounded):
    """The key to create, in the project of the requesting key."""

    name: str = Field("unnamed", min_length=1, max_length=200, description="The purpose of the key.")
    scopes: list[Scope] = Field(
        [Scope.SUBMIT, Scope.READ],
        min_length=1,
        max_length=len(Scope),
        description="What the key may do. The requesting key must have these scopes, too.",
    )
    expires_at: AwareDatetime | None = Field(None, description="When the key expires.")
    rate_limit: str | None = Field(None, max_length=100, description="Maximum rate of requests, such as `600/minute`.")
    files_per_day: _Count | None = Field(None, description="Maximum number of files per day.")
    bytes_per_day: _Count | None = Field(None, description="Maximum number of bytes per day.")


class KeyAnswer(BaseModel):
    """An API key without its secret."""

    id: UUID
    #: The public part of the key.
    prefix: str
    name: str
    #: The name of its project.
    project: str
    scopes: list[Scope]
    rate_limit: str | None
    files_per_day: int | None
    bytes_per_day: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyCreated(KeyAnswer):
    """A new API key. This answer is the only copy of the secret."""

    key: str


class KeysAnswer(BaseModel):
    """All keys of the project, including revoked ones, in the order of their creation."""

    keys: list[KeyAnswer]
