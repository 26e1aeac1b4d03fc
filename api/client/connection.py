"""One API under one key: requests that are tried again, and errors as exceptions."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    wait_random_exponential,
)

from api.client.unreachable import ApiUnavailable, CertificateNotTrusted
from api.client.unreachable import explain as explain_http
from api.contract.paging import Page
from api.contract.problems import Problem
from shared.errors import CarinaError, ObjectStoreUnavailable, Place, TransientError, plain_code
from shared.network.proxies import http_client
from shared.network.tls import make_context
from shared.network.urls import check_http_url

log = logging.getLogger("carina.client")

LONG_POLL_S = 20.0
#: Between two looks where the server did not wait.
PAUSE_S = 0.5
#: To read: the longest of a long poll and of storing a large file after its last byte.
_TIMEOUT = httpx.Timeout(30, connect=10, read=120)
#: For each step of asking whether the object store is there; all of them together take less than 10 s.
_REACH_S = 3.0
#: A server that has not answered for so long is given up on, unless it has answered before.
FIRST_ANSWER_S = 2.5
#: To connect for the first time, or to wait for the answer, whatever is asked for.
_LEAST_FIRST_S, _MOST_FIRST_S = 0.5, 10.0
#: For each step of asking a server whether it is alive while it owes the first answer; a busy one takes seconds.
_ALIVE_S = 25.0
#: Where the answer is no problem document, the URL names another server. Proxies answer with other ones.
_OF_ANOTHER_SERVER = {400, 401, 403, 404, 405, 406, 410, 501}
#: Of an error answer that a proxy made.
UNKNOWN_ERROR = plain_code("unknown_error", "A proxy or another server answered with an error.", Place.PYTHON_CLIENT)
_UNAVAILABLE = {httpx.codes.TOO_MANY_REQUESTS, 502, 503, 504}

Answer = TypeVar("Answer", bound=BaseModel)
PageAnswer = TypeVar("PageAnswer", bound=Page)
Looked = TypeVar("Looked")
Params = Mapping[str, str | float | list[str]]
#: A request's body, made anew for every try.
Body = Callable[[], bytes | Iterator[bytes]]


class RequestRefused(CarinaError, shares_code=True):
    """The API answered with an error; `code` and the message are those of the answer."""

    def __init__(self, problem: Problem) -> None:
        named = [f"{each.name}: {each.detail}" for each in problem.errors or () if each.detail not in problem.detail]
        super().__init__(" ".join([problem.detail, *named]))
        self.code = problem.code
        self.status = problem.status
        #: Of `not_found` and `ambiguous_name`: the ids of things that may have been meant.
        self.candidates = problem.candidates or []


class UnexpectedAnswer(CarinaError):
    """The server does not answer as Carina's API does. Check the URL and the version of the server."""

    code = "unexpected_answer"


class InvalidUrl(CarinaError):
    """The URL of the API is not valid."""

    code = "invalid_url"


class InvalidKey(CarinaError):
    """The API key contains a character that no key contains. Copy the key again."""

    code = "invalid_key"


class UnfitText(CarinaError):
    """A value cannot be sent: it is too long or is not valid Unicode text."""

    code = "unfit_text"


class UploadRefused(CarinaError):
    """The object store refused an upload."""

    code = "upload_refused"


class StoreUnreachable(CarinaError):
    """The object store's address cannot be reached from this machine."""

    code = "object_store_unreachable"


class UrlExpired(UploadRefused, shares_code=True):
    """The object store refused a presigned URL, most likely because it has expired."""


class Connection:
    """The API at one URL, under one key. Use it in a `with` block, or call `close`. Safe to share between threads.

    Every method raises `RequestRefused` for an error answer, and `ApiUnavailable` when there was no answer for
    `retry_for_s`. Until then a request is tried again with a growing pause, which does no harm: a file that did arrive
    is answered as a duplicate, and what creates something says by its `Idempotency-Key` that it is the same again.
    `on_retry` hears a sentence before each further try; by default it is logged as a warning.
    """

    #: Whether there has been any answer.
    _has_answered = False
    #: When the first request began.
    _began_s: float | None = None

    def __init__(
        self,
        api_url: str,
        api_key: str,
        *,
        retry_for_s: float = 90,
        first_answer_s: float = FIRST_ANSWER_S,
        ca_bundle: str = "",
        on_retry: Callable[[str], object] = log.warning,
    ) -> None:
        """Connect when needed. Raises `InvalidUrl`, `InvalidKey` and `CaBundleUnusable`.

        `first_answer_s` bounds the tries until the first answer: a server that never answered is more likely at another
        address than about to come up. `ca_bundle`: PEM file of the authorities to trust; by default `CARINA_CA_BUNDLE`.
        """
        try:
            self.api_url = check_http_url(api_url).rstrip("/")
        except ValueError as exc:
            raise InvalidUrl(f"{api_url!r} cannot be the URL of the API. {exc}") from exc
        if not (api_key := api_key.strip()).isascii() or not api_key.isprintable():
            raise InvalidKey
        tls = make_context(ca_bundle)
        self._retry_for_s = retry_for_s
        self._first_answer_s = first_answer_s
        self._on_retry = on_retry
        headers = {"Authorization": f"Bearer {api_key}"}
        try:
            self._http = http_client(base_url=self.api_url, headers=headers, verify=tls, timeout=_TIMEOUT)
        except httpx.InvalidURL as exc:
            raise InvalidUrl(f"{api_url!r} cannot be the URL of the API: {exc}.") from exc
        #: For presigned URLs, which carry their own signature: the key is not for the object store.
        self._store_http = http_client(verify=tls, timeout=httpx.Timeout(30, connect=10, read=60))
        self._retrying = Retrying(
            retry=retry_if_exception_type(TransientError) & retry_if_not_exception_type(CertificateNotTrusted),
            stop=self._is_given_up,
            wait=self._pause_s,
            before_sleep=self._announce,
            reraise=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._store_http.close()

    def put_through_api(self, url: str, body: Body, headers: Mapping[str, str]) -> None:
        """Put bytes to the API itself, at the address that this client has: the key goes to no other one."""
        path = url.rpartition("/v1/")[2]
        self._request("PUT", f"/v1/{path}", content=body, headers=headers)

    def reach_store(self, url: str) -> None:
        """Return once the object store of a presigned URL answers, whatever it says; else raise `StoreUnreachable`."""
        try:
            self._store_http.head(urljoin(url, "/"), timeout=_REACH_S)
        except httpx.TransportError as exc:
            raise StoreUnreachable(explain_http(exc, ObjectStoreUnavailable, "The object store", url).detail) from exc

    def put_into_store(self, url: str, body: Body, headers: Mapping[str, str]) -> None:
        """Put bytes to a presigned URL.

        Raises `ObjectStoreUnavailable`, `StoreUnreachable`, `UrlExpired` and `UploadRefused`.
        """
        self._retrying(self._attempt_store, url, body, headers)

    def _left_s(self, state: RetryCallState) -> float:
        most_s = self._retry_for_s if self._has_answered else min(self._retry_for_s, self._first_answer_s)
        return most_s - (state.seconds_since_start or 0)

    def _is_given_up(self, state: RetryCallState) -> bool:
        return self._left_s(state) <= 0

    def _pause_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        pause_s = max(_growing_s(state), getattr(error, "retry_after_s", 0.0))
        return pause_s if self._has_answered else min(pause_s, self._left_s(state))

    def _announce(self, state: RetryCallState) -> None:
        """Say that a try has failed and when the next one follows; before the first answer, once."""
        if not self._has_answered and state.attempt_number > 1:
            return
        error = state.outcome.exception() if state.outcome else None
        why = (error.detail if isinstance(error, CarinaError) else str(error)).rstrip(".")
        status = getattr(error, "status", None)
        what = f"The API answered {status} ({why})" if status else why
        pause = f"{max(0.1, state.upcoming_sleep):.1f}".removesuffix(".0")
        left = f"giving up in {max(0, self._left_s(state)):.0f} s"
        self._on_retry(f"{what}; trying again in {pause} s (try {state.attempt_number + 1}, {left}).")

    def _attempt_store(self, url: str, body: Body, headers: Mapping[str, str]) -> None:
        host = urlsplit(url).netloc
        try:
            response = self._store_http.put(url, content=body(), headers=headers)
        except httpx.TransportError as exc:
            self.reach_store(url)  # else there is no use in trying again
            raise explain_http(exc, ObjectStoreUnavailable, "The object store", url) from exc
        if response.status_code == httpx.codes.FORBIDDEN:
            raise UrlExpired(f"The object store at {host} refuses the upload's URL.")
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            raise ObjectStoreUnavailable(f"The object store at {host} answers {response.status_code}.")
        if not response.is_success:
            raise UploadRefused(f"The object store at {host} answers {response.status_code}.")

    def _get(self, answer: type[Answer], path: str, **params: str | float | list[str]) -> Answer:
        return self._read(answer, self._request("GET", path, params))

    def _pages(self, answer: type[PageAnswer], path: str, **params: str | float) -> Iterator[PageAnswer]:
        """Yield the pages of a long list, each from where the one before ended."""
        while True:
            page = self._get(answer, path, **params)
            yield page
            if page.next is None:
                return
            params["before"] = str(page.next)

    def _post(
        self, answer: type[Answer], path: str, body: BaseModel | None = None, key: str | None = None, **params: str
    ) -> Answer:
        """Send a body; `key` makes of a second try the same request."""
        headers = {"Idempotency-Key": key} if key else {}
        return self._read(answer, self._request("POST", path, params, body=body, headers=headers))

    def _read(self, answer: type[Answer], content: bytes) -> Answer:
        try:
            return answer.model_validate_json(content)
        except ValidationError as exc:
            raise UnexpectedAnswer(
                f"The server at {self.api_url} does not answer as Carina's API does: "
                "the URL names another server, or its version differs from this client's."
            ) from exc

    def _request(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        files: Sequence[Path] = (),
        body: BaseModel | None = None,
        content: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        return self._retrying(self._attempt, method, path, params or {}, files, body, content, headers)

    def _attempt(
        self,
        method: str,
        path: str,
        params: Params,
        files: Sequence[Path] = (),
        body: BaseModel | None = None,
        content: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        with ExitStack() as opened:
            parts = [("files", (file.name, opened.enter_context(file.open("rb")))) for file in files]
            try:
                request = self._http.build_request(
                    method,
                    path,
                    params=params,
                    files=parts or None,
                    # A change says only what is to change.
                    json=None if body is None else body.model_dump(mode="json", exclude_unset=method == "PATCH"),
                    content=None if content is None else content(),
                    headers=headers,
                )
                if not self._has_answered and (files or content is not None):
                    # An upload may take its time, so a server is known by something smaller.
                    self._send_first(self._http.build_request("GET", "/healthz"))
                    self._has_answered = True
                response = self._http.send(request) if self._has_answered else self._send_first(request)
            except httpx.TransportError as exc:
                raise explain_http(exc, ApiUnavailable, "The API", self.api_url) from exc
            except (UnicodeEncodeError, httpx.InvalidURL) as exc:
                raise UnfitText from exc
        self._has_answered = True
        after = response.headers.get("Retry-After", "")
        after_s = float(after) if after.isdecimal() else 0.0
        # 409 with a time: the same request is still being answered. A day's quota is not waited for.
        again = response.status_code in _UNAVAILABLE or (after and response.status_code == httpx.codes.CONFLICT)
        if again and not (response.status_code == httpx.codes.TOO_MANY_REQUESTS and after_s > self._retry_for_s):
            unavailable = ApiUnavailable(_problem(response).detail)
            unavailable.retry_after_s, unavailable.status = after_s, response.status_code
            raise unavailable
        if response.is_redirect or (response.status_code in _OF_ANOTHER_SERVER and not _is_problem(response)):
            where = f" and leads to {location}" if (location := response.headers.get("Location")) else ""
            raise UnexpectedAnswer(
                f"The server at {self.api_url} answers {response.status_code}{where}, not as Carina's API does: "
                "the URL names another server."
            )
        if not response.is_success:
            raise RequestRefused(_problem(response))
        return response.content

    def _send_first(self, request: httpx.Request) -> httpx.Response:
        """Send a request; give up where there is no connection within `first_answer_s`, names and all addresses tried.

        Neither a resolver nor a host with several addresses keeps to a timeout of the HTTP client. Where there is a
        connection and no answer, the server is asked whether it is alive: if it is, the answer is waited for.
        """
        limit_s = self._limit_first_s()
        settled: Future[httpx.Response] = Future()
        moved = threading.Event()

        def trace(event: str, of: Mapping[str, Any]) -> None:
            if event.endswith("send_request_headers.started") and of["request"].method != b"CONNECT":
                # What is given up on is not sent once there is a connection after all.
                if not settled.running() and not settled.set_running_or_notify_cancel():
                    raise httpx.ConnectTimeout("given up")
                moved.set()

        def send() -> None:
            try:
                response = self._http.send(request)
            except BaseException as exc:  # noqa: BLE001 - raised where it is waited for
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
        self._require_life(settled)
        return settled.result()

    def _require_life(self, owed: Future[httpx.Response]) -> None:
        """Return once there is an answer, or the server is known to be alive; else raise httpx's error."""
        wait([owed], timeout=self._limit_first_s())
        if owed.done():
            return
        self._on_retry(f"The API at {self.api_url} takes its time; giving up in {_ALIVE_S:g} s unless it is alive.")
        try:
            self._http.get("/healthz", timeout=_ALIVE_S)
        except httpx.TransportError:
            if not owed.done():
                raise

    def _limit_first_s(self) -> float:
        """How long the first answer is still waited for."""
        if self._began_s is None:
            self._began_s = time.monotonic()
        left_s = self._began_s + self._first_answer_s - time.monotonic()
        return max(_LEAST_FIRST_S, min(left_s, _MOST_FIRST_S))


def look_until(
    look: Callable[[float], Looked],
    is_over: Callable[[Looked], bool],
    timeout_s: float,
    on_look: Callable[[Looked], object] = lambda _: None,
    pause_s: float = PAUSE_S,
) -> Looked:
    """Look until it is over or the time is; return the last look. `look` is told how long the server may wait."""
    deadline = time.monotonic() + timeout_s
    while True:
        asked = time.monotonic()
        looked = look(min(LONG_POLL_S, max(0.0, deadline - asked)))
        on_look(looked)
        now = time.monotonic()
        if is_over(looked) or now >= deadline:
            return looked
        # The server answers early when too many wait, or when it is about to end.
        time.sleep(max(0.0, min(deadline - now, asked + pause_s - now)))


_growing_s = wait_random_exponential(multiplier=0.3, max=10)


def _is_problem(response: httpx.Response) -> bool:
    try:
        Problem.model_validate_json(response.content)
    except ValidationError:
        return False
    return True


def _problem(response: httpx.Response) -> Problem:
    """Read an error answer; one that a proxy made is no problem document."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        phrase = response.reason_phrase or "error"
        detail = f"The server answered {response.status_code} {phrase}."
        return Problem(title=phrase, status=response.status_code, detail=detail, code=UNKNOWN_ERROR)
