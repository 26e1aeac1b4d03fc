"""The data that a project can keep for a limited time."""

from enum import StrEnum


class Retained(StrEnum):
    """A kind of data with a time after which it is deleted; `CARINA_<KIND>_DAYS` is its setting."""

    #: After the image arrived.
    ORIGINALS = "originals"
    #: Those that no dataset contains, after the image arrived.
    RENDITIONS = "renditions"
    #: Jobs with their detections and reviews, after the job ended.
    RESULTS = "results"
    #: With their manifests, after the submission ended.
    SUBMISSIONS = "submissions"
    #: Webhook messages, after they were delivered or given up.
    DELIVERIES = "deliveries"
    #: Audit rows.
    AUDIT = "audit"
