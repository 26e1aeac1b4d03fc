"""Rate limits by key (Flask-Limiter), counted in Redis. Daily quotas are in `shared.access.quotas`.

If Redis is down, requests are not limited, and one warning is logged.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import limits
import redis
import structlog
from flask import Flask, Response, g
from flask_limiter import Limiter, RateLimitExceeded
from limits.storage import RedisStorage

from api.http.auth import identity
from api.http.errors import answer
from shared.access.keys import Identity
from shared.errors import RequestError
from shared.redis_connection import connect
from shared.settings import Settings

Answer = TypeVar("Answer")

log = structlog.get_logger()

#: Timeout of a Redis call, and the pause before the next call after a failed one.
_TIMEOUT_S, _QUIET_S = 0.25, 5.0


class RateLimited(RequestError):
    """The API key has sent too many requests. Wait for the seconds in `Retry-After`."""

    code = "rate_limited"
    status = 429


class _PassingStorage(RedisStorage):
    """Counts in Redis; all counts are 0 while Redis is down, full or a read-only replica."""

    STORAGE_SCHEME = ["carina"]  # noqa: RUF012 - as its base has it

    def __init__(self, uri: str, connection_pool: redis.ConnectionPool, **_: Any) -> None:
        super().__init__(uri, connection_pool=connection_pool)
        self._is_down = False
        self._quiet_until = 0.0

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self._ask(partial(super().incr, key, expiry, amount), 0)

    def get(self, key: str) -> int:
        return self._ask(partial(super().get, key), 0)

    def get_expiry(self, key: str) -> float:
        return self._ask(partial(super().get_expiry, key), time.time())

    def _ask(self, question: Callable[[], Answer], otherwise: Answer) -> Answer:
        if self._is_down:
            if time.monotonic() < self._quiet_until:
                return otherwise
            self._quiet_until = time.monotonic() + _QUIET_S  # only this request tries again
        try:
            found = question()
        except (redis.RedisError, OSError) as exc:
            self._quiet_until = time.monotonic() + _QUIET_S
            was_down, self._is_down = self._is_down, True
            if not was_down:
                log.warning("limits_not_enforced", error=type(exc).__name__)
            return otherwise
        self._is_down = False
        return found


def install(app: Flask, settings: Settings) -> None:
    """Limit the requests of each key. Call it after `authenticate`. Raise `ValueError` for an invalid setting."""
    limits.parse_many(settings.rate_limit or "1/second")

    def rate_limit() -> str:
        known: Identity | None = g.get("identity")
        return (known.allowance.rate_limit or settings.rate_limit) if known else ""

    pool = connect(settings, connect_s=_TIMEOUT_S, answer_s=_TIMEOUT_S).connection_pool
    limiter = Limiter(
        lambda: str(identity().key_id),
        application_limits=[rate_limit],
        strategy="fixed-window",
        storage_uri="carina://",
        storage_options={"connection_pool": pool},  # type: ignore[dict-item]
        key_prefix="carina",
    )
    limiter.request_filter(lambda: not rate_limit())
    limiter.init_app(app)

    def refuse(_: RateLimitExceeded) -> Response:
        limited = RateLimited()
        if limiter.current_limit is not None:
            limited.retry_after_s = max(1, limiter.current_limit.reset_at - int(time.time()))
        return answer(limited)

    app.register_error_handler(RateLimitExceeded, refuse)
