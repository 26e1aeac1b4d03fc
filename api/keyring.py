"""Verified keys, kept for a few seconds so that a client that polls does not cost a query more each time."""

import hashlib
import time
from collections.abc import Callable
from uuid import UUID

from sqlalchemy.orm import Session

from shared.database import Database
from shared.keys import Identity, find_key, verify_key

_MOST_KEPT = 1000


class Keyring:
    """Verifies API keys against PostgreSQL. Thread-safe."""

    def __init__(self, database: Database, *, kept_s: float = 5.0) -> None:
        """A revoked key may work for `kept_s` longer."""
        self._database = database
        self._kept_s = kept_s
        #: By the key's digest, so that no key in clear stays in memory, or by its id: whom it stands for, until when.
        self._kept: dict[bytes, tuple[Identity, float]] = {}

    def identify(self, key: str) -> Identity:
        """Return whom a key stands for; raise `Unauthorized` or `KeyExpired`."""
        return self._look_up(hashlib.sha256(key.encode()).digest(), lambda session: verify_key(session, key))

    def identify_by_id(self, key_id: UUID) -> Identity:
        """Return whom a key stands for that was verified before; raise `Unauthorized` or `KeyExpired`."""
        return self._look_up(key_id.bytes, lambda session: find_key(session, key_id))

    def _look_up(self, name: bytes, find: Callable[[Session], Identity]) -> Identity:
        now = time.monotonic()
        identity, until = self._kept.get(name, (None, 0.0))
        if identity is not None and now < until:
            identity.require_time()
            return identity
        with self._database.begin() as session:
            identity = find(session)
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[name] = identity, now + self._kept_s
        return identity
