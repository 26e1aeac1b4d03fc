"""The ledger of a campaign: what clients and the webhook receiver saw from outside, to be compared with the stack."""

import re
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

#: The most errors that are kept word by word.
_MOST_ERRORS = 50


@dataclass
class Bulk:
    """A bulk submission as its client made it: the digests of its files, those in archives included."""

    sha256s: list[str]
    #: How many files of it are archives.
    archives: int = 0
    #: How many files the server has to reject.
    unfit: int = 0
    #: Whether the client asked to cancel it. The answer can say that it was final already.
    is_cancelled: bool = False


@dataclass
class Ledger:
    """All that the clients were promised. Safe to share between threads."""

    #: By digest of an accepted file: how often it was sent by each way in.
    accepted: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    #: Digests of accepted files that have to be rejected later, because their pixels cannot be decoded.
    unfit: set[str] = field(default_factory=set)
    #: Jobs that a client asked to cancel, and those of them for which the API confirmed it.
    cancels: set[UUID] = field(default_factory=set)
    cancelled: set[UUID] = field(default_factory=set)
    bulks: dict[UUID, Bulk] = field(default_factory=dict)
    trainings: list[UUID] = field(default_factory=list)
    evaluations: list[UUID] = field(default_factory=list)
    #: What else the clients did, by name.
    actions: Counter[str] = field(default_factory=Counter)
    #: Answers of the API by method, route and status.
    answers: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    #: Errors that a client must not meet.
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def accept(self, way: str, *sha256s: str) -> None:
        """Record files that the API accepted, or knew already."""
        with self.lock:
            for sha256 in sha256s:
                self.accepted[sha256][way] += 1

    def act(self, name: str, count: int = 1) -> None:
        """Count an action of a client."""
        with self.lock:
            self.actions[name] += count

    def fail(self, error: str) -> None:
        """Record an error that a client must not meet."""
        with self.lock:
            self.actions["client errors"] += 1
            if len(self.errors) < _MOST_ERRORS:
                self.errors.append(error)


class Routes:
    """The routes and statuses that the API's own description lists."""

    def __init__(self, description: dict[str, Any]) -> None:
        self._routes = [
            (method.upper(), re.compile(re.sub(r"\{[^/]+\}", "[^/]+", path) + "$"), path, set(operation["responses"]))
            for path, operations in description["paths"].items()
            for method, operation in operations.items()
            if "responses" in operation
        ]
        self._known: dict[tuple[str, str], set[str]] = {(method, path): said for method, _, path, said in self._routes}

    def path_of(self, method: str, path: str) -> str:
        """The route of a request; the path itself if no route fits. A route without parameters goes first."""
        fitting = [route for each, pattern, route, _ in self._routes if each == method and pattern.match(path)]
        return min(fitting, key=lambda route: route.count("{"), default=path)

    def is_documented(self, method: str, route: str, status: int) -> bool:
        """Whether the description lists this status for the route."""
        said = self._known.get((method, route), set())
        return str(status) in said or f"{status // 100}XX" in said or "default" in said

    def watch(self, http: httpx.Client, ledger: Ledger) -> None:
        """Count the answers that a client gets."""

        def count(response: httpx.Response) -> None:
            method = response.request.method
            route = self.path_of(method, response.request.url.path)
            with ledger.lock:
                ledger.answers[method, route, response.status_code] += 1

        http.event_hooks["response"].append(count)
