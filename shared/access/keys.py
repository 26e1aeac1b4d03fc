"""API keys: `carina_<prefix>_<secret>`, one project each, hashed at rest."""

import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.bounded import is_odd
from shared.errors import KeyExpired, NotFound, Unauthorized
from shared.suggestions import no_such
from shared.tables import ApiKey, Project
from shared.vocabulary.states import Scope

#: The project of keys that are made without naming one.
FIRST_PROJECT = "default"


@dataclass(frozen=True)
class Allowance:
    """How long and how much a key may ask for; None: without end."""

    expires_at: datetime | None = None
    #: As `100/minute`.
    rate_limit: str | None = None
    files_per_day: int | None = None
    bytes_per_day: int | None = None


NO_END = Allowance()


@dataclass(frozen=True)
class Identity:
    """Whom a key stands for."""

    key_id: UUID
    #: What people call the key.
    name: str
    project_id: UUID
    scopes: frozenset[Scope]
    allowance: Allowance = NO_END

    def require_time(self) -> None:
        """Raise `KeyExpired` once the key's time is over."""
        end = self.allowance.expires_at
        if end is not None and end <= datetime.now(UTC):
            raise KeyExpired

    def may(self, scope: Scope) -> bool:
        """Whether the key has this scope; `admin` has all that end at the project."""
        return scope in self.scopes or (Scope.ADMIN in self.scopes and scope is not Scope.SYSTEM)


def create_key(
    session: Session,
    *,
    project_name: str,
    name: str,
    scopes: Collection[Scope],
    allowance: Allowance = NO_END,
) -> str:
    """Make a key, and its project where that is new. The returned text is the only copy of the secret."""
    project = session.scalar(sa.select(Project).where(Project.name == project_name)) or _add_project(
        session, project_name
    )
    prefix, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    session.add(
        ApiKey(
            project_id=project.id,
            name=name,
            prefix=prefix,
            secret_sha256=_digest(secret),
            scopes=sorted(scopes),
            **asdict(allowance),
        )
    )
    return f"carina_{prefix}_{secret}"


def find_project(session: Session, name: str) -> UUID:
    """Return the id of a project; raise `NotFound`. The first one is made where it is missing."""
    project_id = session.scalar(sa.select(Project.id).where(Project.name == name))
    if project_id is None and name != FIRST_PROJECT:
        known = session.scalars(sa.select(Project.name))
        raise NotFound(f"{no_such('project', name, names=known)} `carina key create --project` makes one.")
    return project_id or _add_project(session, name).id


def _add_project(session: Session, name: str) -> Project:
    session.add(project := Project(name=name))
    session.flush()
    return project


def prefix_of(key: str) -> str:
    """Return the public part of a key."""
    return key.split("_")[1]


def verify_key(session: Session, key: str) -> Identity:
    """Return whom a key stands for; raise `Unauthorized` when it is unknown, wrong or revoked, or `KeyExpired`."""
    brand, _, rest = key.partition("_")
    prefix, _, secret = rest.partition("_")
    if is_odd(key):
        raise Unauthorized  # PostgreSQL takes no NUL
    row = session.scalar(sa.select(ApiKey).where(ApiKey.prefix == prefix))
    # Compare also where there is no row, so that an answer's time does not tell which prefixes exist.
    right = hmac.compare_digest(row.secret_sha256 if row else _digest(""), _digest(secret))
    if brand != "carina" or not right:
        raise Unauthorized
    return identity_of(row)


def identity_of(row: ApiKey | None) -> Identity:
    """Return whom a key's row stands for; raise `Unauthorized` when there is none or it is revoked, or `KeyExpired`."""
    if row is None or row.revoked_at is not None:
        raise Unauthorized
    allowance = Allowance(row.expires_at, row.rate_limit, row.files_per_day, row.bytes_per_day)
    identity = Identity(row.id, row.name, row.project_id, frozenset(Scope(scope) for scope in row.scopes), allowance)
    identity.require_time()
    return identity


def revoke_key(session: Session, prefix: str) -> None:
    """End a key for good; raise `NotFound` when no live key has this prefix."""
    live = sa.update(ApiKey).where(ApiKey.prefix == prefix, ApiKey.revoked_at.is_(None))
    if session.execute(live.values(revoked_at=sa.func.now()).returning(ApiKey.id)).first() is None:
        known = session.scalars(sa.select(ApiKey.prefix).where(ApiKey.revoked_at.is_(None)))
        raise no_such("live key", prefix, names=known)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
