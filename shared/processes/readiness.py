"""Whether a process can take work: asks each server that it uses, within a time that no server chooses."""

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

#: How long a server may take to answer.
ANSWER_S = 2.0
#: Codes whose sentence may be shown to anybody.
NO_ANSWER = plain_code("no_answer_in_time", "The server did not answer within the time of the check.", Place.HEALTH)
_PUBLIC = (SchemaOutdated,)


@dataclass(frozen=True)
class Answer:
    """What came of a question to a server."""

    ok: bool
    #: Of the error.
    code: str | None = None
    #: A sentence that says more than the code, and nothing about the place.
    detail: str | None = None


class Ping:
    """A question to one server. Thread-safe; one that is not answered is waited for, not asked again."""

    def __init__(self, ask: Callable[[], object]) -> None:
        """`ask` raises one of our errors when the server does not do its part."""
        self._ask = ask
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._answer = Answer(ok=False, code=TransientError.code)

    def start(self) -> None:
        """Ask, unless an answer is still to come."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                # A daemon, so that a server which never answers does not hold up the end of the process.
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def answer_by(self, deadline: float) -> Answer:
        """Return the latest answer, or `no_answer_in_time` at `deadline` (monotonic seconds)."""
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
            # A fault of ours: the server may be well, but nobody can tell.
            log.error("ping_failed", exc_info=error)
            self._answer = Answer(ok=False, code=CarinaError.code)
        else:
            self._answer = Answer(ok=True)


@dataclass(frozen=True)
class Outcome:
    """What all servers answered, by name."""

    answers: Mapping[str, Answer]
    #: Without these the process takes no work, and without those it works, but slower: the codes of what is missing.
    not_ready: Mapping[str, str]
    degraded: Mapping[str, str]


def storing(database: Database, store: ObjectStore | None = None) -> dict[str, Callable[[], object]]:
    """Return the questions to the servers without which nothing can be written down."""
    questions: dict[str, Callable[[], object]] = {
        "database": database.ping,
        "schema": partial(migrations.require_current, database),
    }
    return questions | ({"object_store": store.ping} if store else {})


class Readiness:
    """The servers of a process. Thread-safe."""

    def __init__(
        self, needed: Mapping[str, Callable[[], object]], wanted: Mapping[str, Callable[[], object]] | None = None
    ) -> None:
        """Without an answer from all that are `needed` there is no work; without those `wanted` there is."""
        self._needed = {name: Ping(ask) for name, ask in needed.items()}
        self._wanted = {name: Ping(ask) for name, ask in (wanted or {}).items()}

    def look(self) -> Outcome:
        """Ask all servers at the same time; return within `ANSWER_S`."""
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
