"""Converts rows of submissions to answers of the API."""

from datetime import datetime

from api.contract.submissions import Counts, SubmissionAnswer
from api.http.resource import fields_of
from shared.submissions.progress import Tally
from shared.tables import Submission


def describe_submission(submission: Submission, tally: Tally, now: datetime) -> SubmissionAnswer:
    """Return a submission with the counts of its files."""
    since_s = ((submission.finished_at or now) - submission.created_at).total_seconds()
    done = tally.total - tally.open
    files_per_s = done / max(since_s, 0.001) if done else None
    source = f"s3://{submission.source_bucket}/{submission.source_prefix}" if submission.source_bucket else None
    others = {
        "model_id": submission.requested_model_id,
        "source": source,
        "counts": Counts(**tally.counts),
        "codes": tally.codes,
        "files_per_s": files_per_s,
        "eta_s": tally.open / files_per_s if files_per_s else None,
    }
    return SubmissionAnswer(**fields_of(SubmissionAnswer, submission, *others), **others)
