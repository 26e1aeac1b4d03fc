"""The queue: its state, its history, its order, and retrying failed jobs."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

from flask import Response

from api.contract.queue import (
    HistoryAnswer,
    HistoryQuery,
    PriorityAnswer,
    PriorityRequest,
    QueueAnswer,
    RetriedAnswer,
    RetryRequest,
)
from api.http.audit import note, unaudited
from api.http.auth import identity, requires
from api.http.errors import may_raise
from api.http.event_stream import STREAM_S, described, event, respond
from api.http.idempotency import idempotent
from api.http.polling import poll
from api.http.resource import as_json, resource
from api.http.services import services
from api.operations.answers import describe_history
from api.operations.queue_watch import queue_watch
from shared.errors import NotFound
from shared.queue.samples import read_history
from shared.queue.stages import PREPARE
from shared.submissions.failures import retry_failures
from shared.submissions.priorities import set_priority
from shared.vocabulary.states import Scope

#: The pause between two checks of a stream.
CHECK_S = 1.0
#: The points of a history: about one for two pixels of a chart.
POINTS = 360

blueprint = resource("queue")

_EVENTS = described("Events named `queue`, each with a QueueAnswer.", "queue")


@blueprint.get("/v1/queue", responses={200: QueueAnswer})
@requires(Scope.READ)
@unaudited("It shows counts, codes and workers.")
def show() -> Response:
    """Show the queue.

    The numbers are of all projects, because these share the queue and its workers. `failures` are those of this project
    in the last 24 hours.
    """
    return as_json(queue_watch().look(identity().project_id))


@blueprint.get("/v1/queue/history", responses={200: HistoryAnswer})
@requires(Scope.READ)
@unaudited("It shows counts, codes and workers.")
def show_history(query: HistoryQuery) -> Response:
    """Show the queue's history.

    Samples are kept for 7 days. A longer time has a lower resolution.
    """
    with services().database.begin() as session:
        return as_json(describe_history(read_history(session, timedelta(hours=query.hours), points=POINTS)))


@blueprint.get("/v1/queue/events", responses={200: _EVENTS})
@requires(Scope.READ)
@unaudited("It shows counts, codes and workers.")
def stream() -> Response:
    """Stream the queue's state.

    Server-sent events: one event for each change. A stream ends after some minutes; connect again to continue.
    """
    project_id = identity().project_id
    first = queue_watch().look(project_id)
    return respond(_event(first), _changes(project_id, first))


@blueprint.post("/v1/jobs/retry", responses={200: RetriedAnswer})
@requires(Scope.SUBMIT)
@idempotent
@may_raise("unknown_code")
def retry(body: RetryRequest) -> Response:
    """Retry failed jobs.

    Makes a new job for each job that failed with this code within the last hours, unless its image has a later job of
    the same model. Rejected jobs are not retried, because they would be rejected again.
    """
    with services().database.begin() as session:
        states = retry_failures(session, identity().project_id, body.code, timedelta(hours=body.hours))
        note(code=body.code, jobs=len(states))
    services().hints.send_for(states)
    return as_json(RetriedAnswer(to_prepare=states.count(PREPARE.waiting), to_detect=states.count(PREPARE.done)))


@blueprint.post("/v1/jobs/priority", responses={200: PriorityAnswer})
@requires(Scope.SUBMIT)
@may_raise(NotFound)
def prioritize(body: PriorityRequest) -> Response:
    """Change the priority of what waits.

    Sets the priority of the jobs of a submission, a study or one job that are not final, and of a submission's files
    that have no job yet. What a worker has begun is finished first.
    """
    with services().database.begin() as session:
        changed = set_priority(session, identity().project_id, body.id, body.priority)
        note(id=str(body.id), priority=body.priority, jobs=changed.jobs, files=changed.files)
    return as_json(PriorityAnswer.model_validate(changed))


def _changes(project_id: UUID, known: QueueAnswer) -> Iterator[str | None]:
    for _ in poll(STREAM_S, (CHECK_S, CHECK_S)):
        answer = queue_watch().look(project_id)
        yield _event(answer) if answer != known else None
        known = answer


def _event(answer: QueueAnswer) -> str:
    return event("queue", answer.model_dump_json())
