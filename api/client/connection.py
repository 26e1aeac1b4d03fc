"""One API under one key: requests that are tried again, and errors as exceptions."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
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
from api.pages import Page
from api.schemas import Problem
from shared.errors import CarinaError, ObjectStoreUnavailable, TransientError
from shared.proxies import http_client
from shared.tls import make_context
from shared.urls import check_http_url

LONG_POLL_S = 20.0
#: Between two looks where the server did not wait.
PAUSE_S = 0.5
#: To read: the longest of a long poll and of storing a large file after its last byte.
_TIMEOUT = httpx.Timeout(30, connect=10, read=120)
#: For each step of asking whether the object store is there; all of them together take less than 10 s.
_REACH_S = 3.0
_UNAVAILABLE = {httpx.codes.TOO_MANY_REQUESTS, 502, 503, 504}

Answer = TypeVar("Answer", bound=BaseModel)
PageAnswer = TypeVar("PageAnswer", bound=Page)
Looked = TypeVar("Looked")
Params = Mapping[str, str | float | list[str]]
#: A request's body, made anew for every try.
Body = Callable[[], bytes | Iterator[bytes]]


class RequestRefused(CarinaError):
    """The API answered with an error; `code` and the text are the answer's own."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.code = problem.code
        self.status = problem.status


class UnexpectedAnswer(CarinaError):
    """The server answers, but not as Carina's API does: the URL names another server, or another version."""

    code = "unexpected_answer"


class InvalidUrl(CarinaError):
    """The URL of the API cannot be used."""

    code = "invalid_url"


class InvalidKey(CarinaError):
    """The API key holds a character that no key holds: copy it anew."""

    code = "invalid_key"


class UnfitText(CarinaError):
    """A value cannot be sent: it is too long, or is not text in Unicode."""

    code = "unfit_text"


class UploadRefused(CarinaError):
    """The object store refuses an upload."""

    code = "upload_refused"


class StoreUnreachable(CarinaError):
    """The object store that the server names cannot be reached from here."""

    code = "object_store_unreachable"


class UrlExpired(UploadRefused):
    """The object store refuses a presigned URL, most likely because its time is over."""


class Connection:
    """The API at one URL, under one key. Use it in a `with` block, or call `close`. Safe to share between threads.

    Every method raises `RequestRefused` for an error answer, and `ApiUnavailable` when there was no answer for
    `retry_for_s`. Until then a request is tried again with a growing pause, which does no harm: a file that did arrive
    is answered as a duplicate, and what creates something says by its `Idempotency-Key` that it is the same again.
    """

    #: Whether there has been any answer.
    _has_answered = False

    def __init__(
        self,
        api_url: str,
        api_key: str,
        *,
        retry_for_s: float = 90,
        first_answer_s: float = math.inf,
        ca_bundle: str = "",
    ) -> None:
        """Connect when needed. Raises `InvalidUrl`, `InvalidKey` and `CaBundleUnusable`.

        `first_answer_s` bounds the tries until the first answer: a server that never answered is more likely at another
        address than about to come up. `ca_bundle`: PEM file of the authorities to trust; by default `CARINA_CA_BUNDLE`.
        """
        try:
            self.api_url = check_http_url(api_url).rstrip("/")
        except ValueError as exc:
            raise InvalidUrl(f"{api_url!r} cannot be the URL of the API: {exc}.") from exc
        if not (api_key := api_key.strip()).isascii() or not api_key.isprintable():
            raise InvalidKey
        tls = make_context(ca_bundle)
        self._retry_for_s = retry_for_s
        self._first_answer_s = first_answer_s
        self._http = http_client(
            base_url=self.api_url,
            headers={"Authorization": f"Bearer {api_key}"},
            verify=tls,
            timeout=_TIMEOUT,
        )
        #: For presigned URLs, which carry their own signature: the key is not for the object store.
        self._store_http = http_client(verify=tls, timeout=httpx.Timeout(30, connect=10, read=60))
        self._retrying = Retrying(
            retry=retry_if_exception_type(TransientError) & retry_if_not_exception_type(CertificateNotTrusted),
            stop=self._is_given_up,
            wait=_pause_s,
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

    def _is_given_up(self, state: RetryCallState) -> bool:
        most_s = self._retry_for_s if self._has_answered else min(self._retry_for_s, self._first_answer_s)
        return (state.seconds_since_start or 0) >= most_s

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
                response = self._http.request(
                    method,
                    path,
                    params=params,
                    files=parts or None,
                    json=None if body is None else body.model_dump(mode="json"),
                    content=None if content is None else content(),
                    headers=headers,
                )
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
            unavailable.retry_after_s = after_s
            raise unavailable
        if not response.is_success:
            raise RequestRefused(_problem(response))
        return response.content


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


def _pause_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_growing_s(state), getattr(error, "retry_after_s", 0.0))


def _problem(response: httpx.Response) -> Problem:
    """Read an error answer; one that a proxy made is no problem document."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        phrase = response.reason_phrase or "error"
        detail = f"The server answered {response.status_code} {phrase}."
        return Problem(title=phrase, status=response.status_code, detail=detail, code="unknown_error")
