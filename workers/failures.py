"""Records the failure of a job's stage: the job is rejected, tried again, or failed."""

import structlog

from shared.database import Database
from shared.errors import CarinaError, DatabaseUnavailable, TransientError
from shared.queue.claim import Claim
from shared.queue.outcome import give_up_or_retry
from shared.settings import Settings

log = structlog.get_logger()


class UnexpectedError(TransientError):
    """An unexpected error occurred. The worker's log has its traceback."""

    code = "unexpected_error"


def to_carina_error(exc: Exception) -> CarinaError:
    """Return the error itself if it is a `CarinaError`; else log it and return an `UnexpectedError` with its type."""
    if isinstance(exc, CarinaError):
        return exc
    log.error("unexpected_error", exc_info=exc)
    return UnexpectedError(f"An unexpected error occurred: {type(exc).__name__}.")


def record_failure(
    database: Database, settings: Settings, claim: Claim, error: CarinaError, *, alone: bool = False
) -> None:
    """Commit the job's new state after an error. An outage of a server does not count as an attempt."""
    try:
        with database.begin() as session:
            state = give_up_or_retry(
                session,
                claim,
                error,
                max_attempts=settings.max_attempts,
                backoff_s=settings.retry_backoff_s,
                alone=alone,
            )
    except DatabaseUnavailable:
        log.warning("failure_not_committed", job_id=str(claim.job_id), code=error.code)
        return
    log.info(
        "job_set_back",
        job_id=str(claim.job_id),
        stage=str(claim.stage),
        state=state,
        code=error.code,
        detail=error.detail,
        attempt=claim.attempt,
    )
