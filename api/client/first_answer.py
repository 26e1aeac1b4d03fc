"""The first request to a server, which may be slow, absent, or another server at a wrong address."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Any

import httpx

#: Minimum and maximum time to connect or to wait for the answer, regardless of the requested time.
_MIN_S, _MAX_S = 0.5, 10.0
#: How long each step of `GET /healthz` may take while the first answer is due; a busy server needs seconds.
_ALIVE_S = 25.0


class FirstAnswer:
    """Sends requests to a server that has not answered yet, within a limit that neither DNS nor TCP keeps to."""

    def __init__(self, limit_s: float, on_wait: Callable[[str], object]) -> None:
        self._limit_of_all_s = limit_s
        self._on_wait = on_wait
        #: When the first request began.
        self._began_s: float | None = None

    def send(self, http: httpx.Client, request: httpx.Request) -> httpx.Response:
        """Send a request; raise `httpx.ConnectTimeout` if there is no connection within the limit.

        The HTTP client's own timeout bounds neither the lookup of the name nor the tries of several addresses. If there
        is a connection and no answer, ask the server whether it is alive, and if so wait for the answer.
        """
        limit_s = self._limit_s()
        settled: Future[httpx.Response] = Future()
        moved = threading.Event()

        def trace(event: str, of: Mapping[str, Any]) -> None:
            if event.endswith("send_request_headers.started") and of["request"].method != b"CONNECT":
                # A connection that comes after the limit must not send the request any more.
                if not settled.running() and not settled.set_running_or_notify_cancel():
                    raise httpx.ConnectTimeout("given up")
                moved.set()

        def send() -> None:
            try:
                response = http.send(request)
            except BaseException as exc:  # noqa: BLE001 - raised in the thread that waits
                if not settled.cancelled():
                    settled.set_exception(exc)
            else:
                settled.set_result(response)
            moved.set()

        request.extensions["trace"] = trace
        request.extensions["timeout"] = {**request.extensions["timeout"], "connect": limit_s}
        threading.Thread(target=send, daemon=True).start()
        if not moved.wait(limit_s) and settled.cancel():
            raise httpx.ConnectTimeout(f"timed out after {limit_s:g} s", request=request)
        self._require_life(http, settled)
        return settled.result()

    def _require_life(self, http: httpx.Client, owed: Future[httpx.Response]) -> None:
        """Wait for the answer, or for a sign that the server is alive; raise httpx's error if there is neither."""
        wait([owed], timeout=self._limit_s())
        if owed.done():
            return
        url = str(http.base_url).rstrip("/")
        self._on_wait(f"The API at {url} takes its time; giving up in {_ALIVE_S:g} s unless it is alive.")
        try:
            http.get("/healthz", timeout=_ALIVE_S)
        except httpx.TransportError:
            if not owed.done():
                raise

    def _limit_s(self) -> float:
        """Return how long to wait for the first answer from now on."""
        if self._began_s is None:
            self._began_s = time.monotonic()
        left_s = self._began_s + self._limit_of_all_s - time.monotonic()
        return max(_MIN_S, min(left_s, _MAX_S))
