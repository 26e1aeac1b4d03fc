"""The words for where a job, a submission, a model or a key stands."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is on its one way through."""

    QUEUED = "queued"  # its original is stored; waits for prepare
    PREPARING = "preparing"  # leased by a prepare worker
    READY = "ready"  # its rendition is stored; waits for detect
    DETECTING = "detecting"  # leased by a detect worker
    SUCCEEDED = "succeeded"  # its detections are committed
    REJECTED = "rejected"  # the input is unfit: `code` says why
    FAILED = "failed"  # its attempts are used up: `code` says on what
    CANCELLED = "cancelled"  # somebody asked for that

    @property
    def is_final(self) -> bool:
        """Whether the job will never change again."""
        return self in (JobState.SUCCEEDED, JobState.REJECTED, JobState.FAILED, JobState.CANCELLED)


class Stage(StrEnum):
    """What a worker process does; also the name of its Celery queue."""

    PREPARE = "prepare"
    DETECT = "detect"
    SWEEP = "sweep"
    TRAIN = "train"
    INTAKE = "intake"
    NOTIFY = "notify"

    @property
    def waiting(self) -> JobState:
        """The state from which this stage claims."""
        return {Stage.PREPARE: JobState.QUEUED, Stage.DETECT: JobState.READY}[self]

    @property
    def leased(self) -> JobState:
        """The state of a job that this stage is working on."""
        return {Stage.PREPARE: JobState.PREPARING, Stage.DETECT: JobState.DETECTING}[self]


class SubmissionState(StrEnum):
    """Where a bulk submission is."""

    OPEN = "open"  # takes more files
    PROCESSING = "processing"  # takes no more; some have not come to their end
    COMPLETED = "completed"  # every file was accepted or known, and every job has succeeded
    COMPLETED_WITH_ERRORS = "completed_with_errors"  # as the manifest says
    CANCELLED = "cancelled"  # somebody asked for that

    @property
    def is_final(self) -> bool:
        """Whether nothing will change again, unless somebody asks for another try."""
        return self not in (SubmissionState.OPEN, SubmissionState.PROCESSING)


class FileState(StrEnum):
    """Where one file of a submission is, until it has a job."""

    EXPECTED = "expected"  # its upload has not been seen yet
    ARRIVED = "arrived"  # lies in the object store; waits for intake
    CHECKING = "checking"  # leased by an intake worker
    ACCEPTED = "accepted"  # has an image and a job, which says the rest
    DUPLICATE = "duplicate"  # its image was there already
    UNPACKED = "unpacked"  # an archive: its entries are files of their own
    REJECTED = "rejected"  # the input is unfit: `code` says why
    FAILED = "failed"  # did not arrive whole, or attempts are used up: `code` says on what
    CANCELLED = "cancelled"  # somebody asked for that
    ERASED = "erased"  # its study was erased; the row stays for the count, without its name

    @property
    def is_final(self) -> bool:
        """Whether intake is done with the file."""
        return self not in (FileState.EXPECTED, FileState.ARRIVED, FileState.CHECKING)


class DeliveryState(StrEnum):
    """Where one message to a webhook is."""

    PENDING = "pending"  # waits for its time
    SENDING = "sending"  # leased by a notify worker
    DELIVERED = "delivered"  # the receiver answered 2xx
    DEAD = "dead"  # given up; may be sent again on request


class TaskState(StrEnum):
    """Where a task of the trainer is: an import, a training, an evaluation or a decision."""

    QUEUED = "queued"  # waits for a trainer
    RUNNING = "running"  # leased by a trainer
    INTERRUPTED = "interrupted"  # its trainer stopped or was lost; goes on from the last checkpoint
    SUCCEEDED = "succeeded"  # its result is committed
    FAILED = "failed"  # `code` says why
    CANCELLED = "cancelled"  # somebody asked for that

    @property
    def is_final(self) -> bool:
        """Whether the task will never change again."""
        return self in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)


class Overlap(StrEnum):
    """What a schedule does when it is due while its last run has not come to its end."""

    SKIP = "skip"  # leaves this time out
    QUEUE = "queue"  # waits behind it


class ModelState(StrEnum):
    """Where a model stands; exactly one is active, or none."""

    CANDIDATE = "candidate"  # imported or trained, never promoted, or rolled back
    ACTIVE = "active"  # detects every job that names no model
    RETIRED = "retired"  # was active; a roll back returns to the latest of these


class Scope(StrEnum):
    """What an API key may do."""

    SUBMIT = "submit"  # send studies, cancel jobs, review findings
    READ = "read"  # see jobs, findings, pixels and models
    TRAIN = "train"  # import datasets, train, evaluate, schedule
    ADMIN = "admin"  # everything in the key's project
    SYSTEM = "system"  # what all projects share: the models, and which one is active; every project's audit
