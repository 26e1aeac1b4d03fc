"""API keys: `carina_<prefix>_<secret>`. Each belongs to one project; only a hash of its secret is stored."""

import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.bounded import is_odd
from shared.errors import Forbidden, KeyExpired, NotFound, RequestError, Unauthorized
from shared.suggestions import no_such
from shared.tables import ApiKey, Project
from shared.vocabulary.states import Scope

#: The project of a key that is created without a project name.
FIRST_PROJECT = "default"


@dataclass(frozen=True)
class Allowance:
    """The expiry and the limits of a key; None: unlimited."""

    expires_at: datetime | None = None
    #: For example `100/minute`.
    rate_limit: str | None = None
    files_per_day: int | None = None
    bytes_per_day: int | None = None


NO_END = Allowance()


class InvalidRateLimit(RequestError):
    """A rate limit is written as `600/minute`."""

    code = "invalid_rate_limit"
    status = 422
    parameter = "rate_limit"


@dataclass(frozen=True)
class Identity:
    """An authenticated key: its project, scopes and limits."""

    key_id: UUID
    #: The display name of the key.
    name: str
    project_id: UUID
    scopes: frozenset[Scope]
    allowance: Allowance = NO_END

    def require_time(self) -> None:
        """Raise `KeyExpired` if the key has expired."""
        end = self.allowance.expires_at
        if end is not None and end <= datetime.now(UTC):
            raise KeyExpired

    def may(self, scope: Scope) -> bool:
        """Whether the key has this scope. `admin` includes all scopes of a project: all except `system`."""
        return scope in self.scopes or (Scope.ADMIN in self.scopes and scope is not Scope.SYSTEM)


def create_key(
    session: Session,
    *,
    project_name: str,
    name: str,
    scopes: Collection[Scope],
    allowance: Allowance = NO_END,
) -> str:
    """Create a key, and its project if it does not exist. The returned key is the only copy of the secret."""
    return add_key(session, open_project(session, project_name), name, scopes, allowance)[1]


def add_key(
    session: Session, project_id: UUID, name: str, scopes: Collection[Scope], allowance: Allowance = NO_END
) -> tuple[ApiKey, str]:
    """Create a key of a project; return its row and the key, the only copy of the secret.

    Raises `InvalidRateLimit`.
    """
    if allowance.rate_limit is not None:
        import limits  # imported only if a limit is set

        try:
            limits.parse_many(allowance.rate_limit)
        except ValueError as exc:
            raise InvalidRateLimit(
                f"{allowance.rate_limit!r} is not a rate limit. Write it as 600/minute.", parameter="rate_limit"
            ) from exc
    prefix, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    row = ApiKey(
        project_id=project_id,
        name=name,
        prefix=prefix,
        secret_sha256=_digest(secret),
        scopes=sorted(scopes),
        **asdict(allowance),
    )
    session.add(row)
    return row, f"carina_{prefix}_{secret}"


def require_grantable(by: Identity, scopes: Collection[Scope]) -> None:
    """Raise `Forbidden` if the new key would have more rights than the key that creates it."""
    if by.allowance != NO_END:
        raise Forbidden("An API key that expires or has limits cannot create other keys.")
    if missing := sorted(scope for scope in scopes if not by.may(scope)):
        raise Forbidden(f"The API key cannot grant a scope that it does not have: {', '.join(missing)}.")


def find_project(session: Session, name: str) -> UUID:
    """Return the id of a project; raise `NotFound`."""
    project_id = session.scalar(sa.select(Project.id).where(Project.name == name))
    if project_id is None:
        known = session.scalars(sa.select(Project.name))
        raise NotFound(f"{no_such('project', name, names=known)} `carina key create --project` makes one.")
    return project_id


def open_project(session: Session, name: str) -> UUID:
    """Return the id of a project; create the project if it does not exist."""
    project_id = session.scalar(sa.select(Project.id).where(Project.name == name))
    if project_id is None:
        session.add(project := Project(name=name))
        session.flush()
        return project.id
    return project_id


def describe_key(session: Session, row: ApiKey) -> dict[str, Any]:
    """Return the public fields of a key and its project's name: all fields except the digest of its secret."""
    shown = ("id", "prefix", "name", "scopes", "created_at", "revoked_at", *(field.name for field in fields(Allowance)))
    return {name: getattr(row, name) for name in shown} | {"project": session.get_one(Project, row.project_id).name}


def find_key(session: Session, prefix: str) -> UUID:
    """Return the id of the key with a prefix, revoked or not; raise `NotFound`."""
    known: dict[str, UUID] = {row.prefix: row.id for row in session.execute(sa.select(ApiKey.prefix, ApiKey.id))}
    if prefix not in known:
        raise no_such("key", prefix, names=known)
    return known[prefix]


def read_prefixes(session: Session, key_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return the prefixes of keys by their ids."""
    rows = session.execute(sa.select(ApiKey.id, ApiKey.prefix).where(ApiKey.id.in_(key_ids)))
    return {row.id: row.prefix for row in rows}


def prefix_of(key: str) -> str:
    """Return the prefix of a key, which is not secret."""
    return key.split("_")[1]


def verify_key(session: Session, key: str) -> Identity:
    """Return the identity of a key; raise `Unauthorized` if it is unknown, wrong or revoked, or `KeyExpired`."""
    brand, _, rest = key.partition("_")
    prefix, _, secret = rest.partition("_")
    if is_odd(key):
        raise Unauthorized  # PostgreSQL rejects NUL
    row = session.scalar(sa.select(ApiKey).where(ApiKey.prefix == prefix))
    # Compare even without a row, so that the response time does not reveal which prefixes exist.
    right = hmac.compare_digest(row.secret_sha256 if row else _digest(""), _digest(secret))
    if brand != "carina" or not right:
        raise Unauthorized
    return identity_of(row)


def identity_of(row: ApiKey | None) -> Identity:
    """Return the identity of a key's row; raise `Unauthorized` if it is None or revoked, or `KeyExpired`."""
    if row is None or row.revoked_at is not None:
        raise Unauthorized
    allowance = Allowance(row.expires_at, row.rate_limit, row.files_per_day, row.bytes_per_day)
    identity = Identity(row.id, row.name, row.project_id, frozenset(Scope(scope) for scope in row.scopes), allowance)
    identity.require_time()
    return identity


def revoke_key(session: Session, prefix: str, project_id: UUID | None = None) -> ApiKey:
    """Revoke a key of `project_id`, or of any project; raise `NotFound` if no active key has this prefix."""
    live = sa.update(ApiKey).where(ApiKey.prefix == prefix, ApiKey.revoked_at.is_(None))
    if project_id is not None:
        live = live.where(ApiKey.project_id == project_id)
    revoked: ApiKey | None = session.scalar(live.values(revoked_at=sa.func.now()).returning(ApiKey))
    if revoked is None:
        known = session.scalars(sa.select(ApiKey.prefix).where(ApiKey.revoked_at.is_(None)))
        raise no_such("live key", prefix, names=known)
    return revoked


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
