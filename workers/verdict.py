"""What a job gets when its stage raised: rejected, tried again, failed, or handed back unharmed."""

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


def known(exc: Exception) -> CarinaError:
    """Return the error itself if it is ours, else an `UnexpectedError` that names its type, and log the rest."""
    if isinstance(exc, CarinaError):
        return exc
    log.error("unexpected_error", exc_info=exc)
    return UnexpectedError(f"Carina met an error that it does not know: {type(exc).__name__}.")


def pass_verdict(
    database: Database, settings: Settings, claim: Claim, error: CarinaError, *, alone: bool = False
) -> None:
    """Commit what the error means for the job. An outage of a server costs the job none of its attempts."""
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
        log.warning("verdict_not_committed", job_id=str(claim.job_id), code=error.code)
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
