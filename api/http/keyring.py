"""A cache of verified keys, so that a polling client does not cost a database query for each request."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from shared.access.console_sessions import find_session
from shared.access.keys import Identity, verify_key
from shared.database import Database

#: How long a process may accept a key or a session after it has ended.
KEPT_S = 2.0
_MAX_KEPT = 1000


@dataclass(frozen=True)
class Credential:
    """What a request authenticates with; it can be verified again while the request is in progress."""

    #: The cache's key: a digest or an id, so that no API key stays in memory.
    name: bytes
    #: Raises `Unauthorized` or `KeyExpired` once it has ended.
    find: Callable[[Session], Identity]


def key_credential(key: str) -> Credential:
    """Return the credential of an API key."""
    return Credential(hashlib.sha256(key.encode()).digest(), lambda session: verify_key(session, key))


def session_credential(session_id: UUID) -> Credential:
    """Return the credential of a console session."""
    return Credential(session_id.bytes, lambda session: find_session(session, session_id))


class Keyring:
    """Verifies API keys and console sessions against PostgreSQL. Thread-safe."""

    def __init__(self, database: Database, *, kept_s: float = KEPT_S) -> None:
        """A revoked key may keep working for `kept_s`."""
        self._database = database
        self._kept_s = kept_s
        #: The identity of a credential, and when it expires from the cache.
        self._kept: dict[bytes, tuple[Identity, float]] = {}

    def identify(self, key: str) -> Identity:
        """Return the identity of a key; raise `Unauthorized` or `KeyExpired`."""
        return self.look_up(key_credential(key))

    def look_up(self, credential: Credential) -> Identity:
        """Return the identity of a credential; raise `Unauthorized` or `KeyExpired`."""
        now = time.monotonic()
        identity, until = self._kept.get(credential.name, (None, 0.0))
        if identity is not None and now < until:
            identity.require_time()
            return identity
        with self._database.begin() as session:
            identity = credential.find(session)
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        self._kept[credential.name] = identity, now + self._kept_s
        return identity

    def forget(self, credential: Credential) -> None:
        """Remove a credential from the cache, so that its end is noticed at once."""
        self._kept.pop(credential.name, None)
