"""Verified keys, kept for a few seconds so that a client that polls does not cost a query more each time."""

import hashlib
import time

from shared.database import Database
from shared.keys import Identity, verify_key

_MOST_KEPT = 1000


class Keyring:
    """Verifies API keys against PostgreSQL. Thread-safe."""

    def __init__(self, database: Database, *, kept_s: float = 5.0) -> None:
        """A revoked key may work for `kept_s` longer."""
        self._database = database
        self._kept_s = kept_s
        #: By the key's digest, so that no key in clear stays in memory: whom it stands for, and until when.
        self._kept: dict[bytes, tuple[Identity, float]] = {}

    def identify(self, key: str) -> Identity:
        """Return whom a key stands for; raise `Unauthorized` or `KeyExpired`."""
        digest, now = hashlib.sha256(key.encode()).digest(), time.monotonic()
        identity, until = self._kept.get(digest, (None, 0.0))
        if identity is not None and now < until:
            identity.require_time()
            return identity
        with self._database.begin() as session:
            identity = verify_key(session, key)
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[digest] = identity, now + self._kept_s
        return identity
