"""The events that a webhook can receive."""

from enum import StrEnum


class WebhookEvent(StrEnum):
    """The events that a webhook can receive."""

    SUBMISSION_COMPLETED = "submission.completed"  # a bulk submission has come to its end, with or without errors
    JOB_FINISHED = "job.finished"  # a job has succeeded, or was rejected, failed or cancelled
