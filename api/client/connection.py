"""The connection to one API with one key: retries, and error answers as exceptions."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
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

from api.client.errors import (
    InvalidKey,
    InvalidUrl,
    RequestRefused,
    StoreUnreachable,
    UnexpectedAnswer,
    UnfitText,
    UploadRefused,
    UrlExpired,
    problem_of,
    read_problem,
)
from api.client.first_answer import FirstAnswer
from api.client.unreachable import ApiUnavailable, CertificateNotTrusted
from api.client.unreachable import explain as explain_http
from api.contract.paging import Page
from shared.errors import CarinaError, ObjectStoreUnavailable, TransientError
from shared.network.proxies import http_client
from shared.network.tls import make_context
from shared.network.urls import check_http_url

log = logging.getLogger("carina.client")

#: Reading takes longest for a long poll, and for storing a large file after its last byte.
_TIMEOUT = httpx.Timeout(30, connect=10, read=120)
#: For each step of the check whether the object store can be reached; all steps take less than 10 s.
_REACH_S = 3.0
#: How long to try until a server has answered once.
FIRST_ANSWER_S = 2.5
#: With these statuses and without a problem document, the answer is another server's. Proxies answer with other ones.
_OF_ANOTHER_SERVER = {400, 401, 403, 404, 405, 406, 410, 501}
_UNAVAILABLE = {httpx.codes.TOO_MANY_REQUESTS, 502, 503, 504}

Answer = TypeVar("Answer", bound=BaseModel)
PageAnswer = TypeVar("PageAnswer", bound=Page)
Params = Mapping[str, str | float | list[str]]
#: A request's body, made anew for every try.
Body = Callable[[], bytes | Iterator[bytes]]


class Connection:
    """The API at one URL, under one key. Use it in a `with` block, or call `close`. Safe to share between threads.

    Methods raise `RequestRefused` for an error answer, and `ApiUnavailable` after `retry_for_s` without an answer.
    Until then they repeat the request with growing pauses. That is safe: a file that arrived before is answered as a
    duplicate, and requests that create something carry an `Idempotency-Key`. `on_retry` is called with a sentence
    before each repetition; by default the sentence is logged as a warning.
    """

    #: Whether there has been any answer.
    _has_answered = False

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

        `first_answer_s` is the limit until the first answer: if a server has never answered, its URL is probably wrong.
        `ca_bundle` names a PEM file of trusted certificate authorities; the default is `CARINA_CA_BUNDLE`.
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
        self._first = FirstAnswer(first_answer_s, on_retry)
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

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._store_http.close()

    def put_through_api(self, url: str, body: Body, headers: Mapping[str, str]) -> None:
        """Upload through the API, at the URL of this client: no other address gets the key."""
        path = url.rpartition("/v1/")[2]
        self._request("PUT", f"/v1/{path}", content=body, headers=headers)

    def reach_store(self, url: str) -> None:
        """Check that the object store of a presigned URL answers, with any status; else raise `StoreUnreachable`."""
        try:
            self._store_http.head(urljoin(url, "/"), timeout=_REACH_S)
        except httpx.TransportError as exc:
            raise StoreUnreachable(explain_http(exc, ObjectStoreUnavailable, "The object store", url).detail) from exc

    def put_into_store(self, url: str, body: Body, headers: Mapping[str, str]) -> None:
        """Upload to a presigned URL.

        Raises `ObjectStoreUnavailable`, `StoreUnreachable`, `UrlExpired` and `UploadRefused`.
        """
        self._retrying(self._attempt_store, url, body, headers)

    def _left_s(self, state: RetryCallState) -> float:
        max_s = self._retry_for_s if self._has_answered else min(self._retry_for_s, self._first_answer_s)
        return max_s - (state.seconds_since_start or 0)

    def _is_given_up(self, state: RetryCallState) -> bool:
        return self._left_s(state) <= 0

    def _pause_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        pause_s = max(_growing_s(state), getattr(error, "retry_after_s", 0.0))
        return pause_s if self._has_answered else min(pause_s, self._left_s(state))

    def _announce(self, state: RetryCallState) -> None:
        """Tell `on_retry` of a failed try and of the next one; until the first answer only once."""
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
            self.reach_store(url)  # another try is of use only if it can be reached
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
        """Yield the pages of a long list."""
        while True:
            page = self._get(answer, path, **params)
            yield page
            if page.next is None:
                return
            params["before"] = str(page.next)

    def _post(
        self, answer: type[Answer], path: str, body: BaseModel | None = None, key: str | None = None, **params: str
    ) -> Answer:
        """Send a body; requests with the same idempotency `key` take effect once."""
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
                    # A PATCH contains only the changed fields.
                    json=None if body is None else body.model_dump(mode="json", exclude_unset=method == "PATCH"),
                    content=None if content is None else content(),
                    headers=headers,
                )
                if not self._has_answered and (files or content is not None):
                    # An upload may take long, so a small request finds out whether there is a server.
                    self._first.send(self._http, self._http.build_request("GET", "/healthz"))
                    self._has_answered = True
                response = self._http.send(request) if self._has_answered else self._first.send(self._http, request)
            except httpx.TransportError as exc:
                raise explain_http(exc, ApiUnavailable, "The API", self.api_url) from exc
            except (UnicodeEncodeError, httpx.InvalidURL) as exc:
                raise UnfitText from exc
        self._has_answered = True
        self._check(response)
        return response.content

    def _check(self, response: httpx.Response) -> None:
        """Raise the error of an answer that is not a success."""
        after = response.headers.get("Retry-After", "")
        after_s = float(after) if after.isdecimal() else 0.0
        # 409 with Retry-After: the same request is in progress. A quota that is used up for the day is not waited for.
        again = response.status_code in _UNAVAILABLE or (after and response.status_code == httpx.codes.CONFLICT)
        if again and not (response.status_code == httpx.codes.TOO_MANY_REQUESTS and after_s > self._retry_for_s):
            unavailable = ApiUnavailable(problem_of(response).detail)
            unavailable.retry_after_s, unavailable.status = after_s, response.status_code
            raise unavailable
        if response.is_redirect or (response.status_code in _OF_ANOTHER_SERVER and read_problem(response) is None):
            where = f" and leads to {location}" if (location := response.headers.get("Location")) else ""
            raise UnexpectedAnswer(
                f"The server at {self.api_url} answers {response.status_code}{where}, not as Carina's API does: "
                "the URL names another server."
            )
        if not response.is_success:
            raise RequestRefused(problem_of(response))

    @contextmanager
    def _stream(self, path: str, params: Params) -> Iterator[httpx.Response]:
        """Open a long answer, to be read as it arrives; the request is repeated only until the answer begins."""

        def begin() -> httpx.Response:
            response = self._http.send(self._http.build_request("GET", path, params=params), stream=True)
            if not response.is_success:
                response.read()
                self._check(response)
            return response

        try:
            with closing(self._retrying(begin)) as response:
                yield response
        except httpx.TransportError as exc:
            raise explain_http(exc, ApiUnavailable, "The API", self.api_url) from exc


_growing_s = wait_random_exponential(multiplier=0.3, max=10)
