"""Checks whether a process can take work: pings each server that it uses, within a fixed time."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from shared import migrations
from shared.database import Database
from shared.errors import CarinaError, Place, SchemaOutdated, TransientError, plain_code
from shared.object_store import ObjectStore

log = structlog.get_logger()

#: Seconds within which a server must answer.
ANSWER_S = 2.0
NO_ANSWER = plain_code("no_answer_in_time", "The server did not answer within the time of the check.", Place.HEALTH)
#: Errors whose message may be public.
_PUBLIC = (SchemaOutdated,)


@dataclass(frozen=True)
class Answer:
    """The outcome of one ping."""

    ok: bool
    #: The code of the error.
    code: str | None = None
    #: A message that contains no host or path.
    detail: str | None = None


class Ping:
    """A check of one server. Thread-safe. While a check runs, no second one is started."""

    def __init__(self, ask: Callable[[], object]) -> None:
        """`ask` raises a `CarinaError` if the server does not work."""
        self._ask = ask
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._answer = Answer(ok=False, code=TransientError.code)

    def start(self) -> None:
        """Start the check, unless the last one is still running."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                # A daemon thread, so that a server that never answers does not delay the end of the process.
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def answer_by(self, deadline: float) -> Answer:
        """Wait for the check until `deadline` (monotonic seconds); return its answer, or `no_answer_in_time`."""
        thread = self._thread
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return Answer(ok=False, code=NO_ANSWER)
        return self._answer

    def _run(self) -> None:
        try:
            self._ask()
        except CarinaError as error:
            detail = error.detail if isinstance(error, _PUBLIC) else None
            self._answer = Answer(ok=False, code=error.code, detail=detail)
        except Exception as error:
            # A bug: the state of the server is not known.
            log.error("ping_failed", exc_info=error)
            self._answer = Answer(ok=False, code=CarinaError.code)
        else:
            self._answer = Answer(ok=True)


@dataclass(frozen=True)
class Outcome:
    """The answers of all servers, by name."""

    answers: Mapping[str, Answer]
    #: Codes by server: failures that prevent work, and failures that make work slower.
    not_ready: Mapping[str, str]
    degraded: Mapping[str, str]


def storing(database: Database, store: ObjectStore | None = None) -> dict[str, Callable[[], object]]:
    """Return the checks of the servers that store data, by name."""
    questions: dict[str, Callable[[], object]] = {
        "database": database.ping,
        "schema": partial(migrations.require_current, database),
    }
    return questions | ({"object_store": store.ping} if store else {})


class Readiness:
    """The checks of all servers that a process uses. Thread-safe."""

    def __init__(
        self, needed: Mapping[str, Callable[[], object]], wanted: Mapping[str, Callable[[], object]] | None = None
    ) -> None:
        """The process takes no work without the `needed` servers; without the `wanted` ones it does."""
        self._needed = {name: Ping(ask) for name, ask in needed.items()}
        self._wanted = {name: Ping(ask) for name, ask in (wanted or {}).items()}

    def look(self) -> Outcome:
        """Check all servers in parallel; return within `ANSWER_S`."""
        deadline = time.monotonic() + ANSWER_S
        pings = self._needed | self._wanted
        for ping in pings.values():
            ping.start()
        answers = {name: ping.answer_by(deadline) for name, ping in pings.items()}
        missing = {name: answer.code or "" for name, answer in answers.items() if not answer.ok}
        return Outcome(
            answers,
            not_ready={name: code for name, code in missing.items() if name in self._needed},
            degraded={name: code for name, code in missing.items() if name in self._wanted},
        )
