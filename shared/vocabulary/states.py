"""The states of jobs, files, deliveries, tasks, submissions and models; the kinds of worker; the scopes of a key."""

from enum import Enum, StrEnum, auto
from typing import Self


class Phase(Enum):
    """The part of a row's life that a state belongs to: see `shared.leases`."""

    EXPECTED = auto()  # there is nothing to work on yet
    WAITING = auto()  # a worker may claim it
    LEASED = auto()  # a worker holds it
    FINAL = auto()  # it changes again only on a request to retry


class LeasedState(StrEnum):
    """The base of the states of rows that workers lease."""

    _value_: str
    phase: Phase
    #: The state in the words of pages.
    words: str

    # The defaults are for type checkers, which take `JobState("queued")` for a call of this.
    def __new__(cls, value: str, phase: Phase = Phase.FINAL, words: str = "") -> Self:
        """Make a state that knows its phase and its words."""
        state = str.__new__(cls, value)
        state._value_, state.phase, state.words = value, phase, words or value.capitalize()
        return state

    @property
    def is_final(self) -> bool:
        """Whether no worker will change the row again."""
        return self.phase is Phase.FINAL

    @classmethod
    def in_phase(cls, *phases: Phase) -> tuple[Self, ...]:
        """Return the states of these phases, in the order of their definition."""
        return tuple(state for state in cls if state.phase in phases)

    @classmethod
    def open(cls) -> tuple[Self, ...]:
        """Return the states that are not final."""
        return tuple(state for state in cls if not state.is_final)


# `shared.queue.stages` has the stages that these states belong to.
class JobState(LeasedState):
    """The states of a job."""

    QUEUED = "queued", Phase.WAITING, "Waiting to be prepared"  # its original is stored
    PREPARING = "preparing", Phase.LEASED, "Being prepared"
    READY = "ready", Phase.WAITING, "Waiting for detection"  # its rendition is stored
    DETECTING = "detecting", Phase.LEASED, "Detection running"
    SUCCEEDED = "succeeded", Phase.FINAL, "Finished"  # its detections are committed
    REJECTED = "rejected", Phase.FINAL  # the input is unfit: `code` says why
    FAILED = "failed", Phase.FINAL  # its attempts are used up: `code` names the last error
    CANCELLED = "cancelled", Phase.FINAL  # on request, or because another job of its image has the result


class WorkerKind(StrEnum):
    """The kinds of worker process; each has a Celery queue of this name for its hints."""

    PREPARE = "prepare"
    DETECT = "detect"
    SWEEP = "sweep"
    TRAIN = "train"
    INTAKE = "intake"
    NOTIFY = "notify"


#: The kinds that `carina worker` runs; sweep and train have commands of their own.
SERVED = tuple(kind for kind in WorkerKind if kind not in (WorkerKind.SWEEP, WorkerKind.TRAIN))


class SubmissionState(StrEnum):
    """The states of a bulk submission."""

    OPEN = "open"  # takes more files
    PROCESSING = "processing"  # takes no more files; some files or jobs are not final
    COMPLETED = "completed"  # every file was accepted or a duplicate, and every job has succeeded
    COMPLETED_WITH_ERRORS = "completed_with_errors"  # the manifest lists the errors
    CANCELLED = "cancelled"  # on request

    @property
    def is_final(self) -> bool:
        """Whether the submission changes again only on a request to retry."""
        return self not in (SubmissionState.OPEN, SubmissionState.PROCESSING)


class FileState(LeasedState):
    """The states of one file of a submission, until it has a job."""

    EXPECTED = "expected", Phase.EXPECTED  # its upload has not been seen yet
    ARRIVED = "arrived", Phase.WAITING  # is in the object store; waits for intake
    CHECKING = "checking", Phase.LEASED  # leased by an intake worker
    ACCEPTED = "accepted", Phase.FINAL  # has an image and a job, whose state continues the file's
    DUPLICATE = "duplicate", Phase.FINAL  # its image was there already
    UNPACKED = "unpacked", Phase.FINAL  # an archive: its entries are files of their own
    REJECTED = "rejected", Phase.FINAL  # the input is unfit: `code` says why
    FAILED = "failed", Phase.FINAL  # did not arrive whole, or attempts are used up: `code` names the last error
    CANCELLED = "cancelled", Phase.FINAL  # on request
    ERASED = "erased", Phase.FINAL  # its study was erased; the row stays for the count, without its name


class DeliveryState(LeasedState):
    """The states of one message to a webhook."""

    PENDING = "pending", Phase.WAITING  # waits for its time
    SENDING = "sending", Phase.LEASED  # leased by a notify worker
    DELIVERED = "delivered", Phase.FINAL  # the receiver answered 2xx
    DEAD = "dead", Phase.FINAL  # given up; can be sent again on request


class TaskState(LeasedState):
    """The states of a task of the trainer: an import, a training, an evaluation or a decision."""

    QUEUED = "queued", Phase.WAITING  # waits for a trainer
    RUNNING = "running", Phase.LEASED  # leased by a trainer
    INTERRUPTED = "interrupted", Phase.WAITING  # its trainer stopped or was lost; continues from the last checkpoint
    SUCCEEDED = "succeeded", Phase.FINAL  # its result is committed
    FAILED = "failed", Phase.FINAL  # `code` says why
    CANCELLED = "cancelled", Phase.FINAL  # on request


class Overlap(StrEnum):
    """What a schedule does when it is due while its last run is not final."""

    SKIP = "skip"  # skips this time
    QUEUE = "queue"  # waits behind it


class ModelState(StrEnum):
    """The states of a model; at most one is active."""

    CANDIDATE = "candidate"  # imported or trained, never promoted, or rolled back
    ACTIVE = "active"  # detects every job that names no model
    RETIRED = "retired"  # was active; a rollback returns to the latest of these


class Scope(StrEnum):
    """What an API key may do."""

    SUBMIT = "submit"  # send studies, cancel jobs, review findings
    READ = "read"  # see jobs, findings, pixels and models
    TRAIN = "train"  # import datasets, train, evaluate, schedule
    ADMIN = "admin"  # everything in the key's project
    SYSTEM = "system"  # what all projects share: the models, and which one is active; every project's audit
