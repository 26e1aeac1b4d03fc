"""Limits the request threads that one API key, and all keys together, may use at the same time."""

import threading
from collections import Counter
from functools import partial

from flask import Flask, g

from api.http.auth import identity
from api.http.body import client_socket
from shared.errors import RequestError
from shared.settings import Settings


class TooManyAtATime(RequestError):
    """This API key has too many requests in progress. Send it again when one of them has been answered."""

    code = "too_many_at_a_time"
    status = 429
    retry_after_s = 1


class ServerBusy(RequestError):
    """The server has too many requests in progress. Send it again later."""

    code = "server_busy"
    status = 503
    retry_after_s = 1


def install(app: Flask, settings: Settings) -> None:
    """Limit each key to three quarters of the threads, and all keys together to seven eighths."""
    per_key, in_all = _part(settings.api_threads, 3 / 4), _part(settings.api_threads, 7 / 8)
    lock, counts = threading.Lock(), Counter[str]()

    def acquire() -> None:
        client = client_socket()
        if client is None or "identity" not in g:
            return  # requests without a key are always short
        key = str(identity().key_id)
        with lock:
            if counts[key] >= per_key:
                raise TooManyAtATime
            if counts.total() >= in_all:
                raise ServerBusy
            counts[key] += 1
        client.when_answered(partial(release, key))

    def release(key: str) -> None:
        with lock:
            counts[key] -= 1
            if not counts[key]:
                del counts[key]

    app.before_request(acquire)


def _part(threads: int, share: float) -> int:
    return max(1, int(threads * share))
