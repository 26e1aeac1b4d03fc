"""Verified keys, kept for a few seconds so that a client that polls does not cost a query more each time."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from shared.access.console_sessions import find_session
from shared.access.keys import Identity, verify_key
from shared.database import Database

#: For so long a process may not notice that a key or a session has ended.
KEPT_S = 2.0
_MOST_KEPT = 1000


@dataclass(frozen=True)
class Credential:
    """What a request was let in by, to be looked up again while it lasts."""

    #: By which the look-up is kept: a digest or an id, so that no key in clear stays in memory.
    name: bytes
    #: Raises `Unauthorized` or `KeyExpired` once it has ended.
    find: Callable[[Session], Identity]


def key_credential(key: str) -> Credential:
    """An API key in clear."""
    return Credential(hashlib.sha256(key.encode()).digest(), lambda session: verify_key(session, key))


def session_credential(session_id: UUID) -> Credential:
    """A session of the console."""
    return Credential(session_id.bytes, lambda session: find_session(session, session_id))


class Keyring:
    """Verifies API keys and sessions of the console against PostgreSQL. Thread-safe."""

    def __init__(self, database: Database, *, kept_s: float = KEPT_S) -> None:
        """A revoked key may work for `kept_s` longer."""
        self._database = database
        self._kept_s = kept_s
        #: Whom a credential stands for, and until when.
        self._kept: dict[bytes, tuple[Identity, float]] = {}

    def identify(self, key: str) -> Identity:
        """Return whom a key stands for; raise `Unauthorized` or `KeyExpired`."""
        return self.look_up(key_credential(key))

    def look_up(self, credential: Credential) -> Identity:
        """Return whom a credential stands for; raise `Unauthorized` or `KeyExpired`."""
        now = time.monotonic()
        identity, until = self._kept.get(credential.name, (None, 0.0))
        if identity is not None and now < until:
            identity.require_time()
            return identity
        with self._database.begin() as session:
            identity = credential.find(session)
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[credential.name] = identity, now + self._kept_s
        return identity

    def forget(self, credential: Credential) -> None:
        """Have a credential that has just ended be looked up the next time."""
        self._kept.pop(credential.name, None)
