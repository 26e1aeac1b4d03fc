"""Transient errors: a server, an object or a device is unavailable, and the work is retried with backoff."""

from shared.errors.base import Place, TransientError


class DatabaseUnavailable(TransientError):
    """PostgreSQL does not answer."""

    code = "database_unavailable"
    counts = False
    places = Place.REQUEST | Place.HEALTH


class AuditUnavailable(DatabaseUnavailable, shares_code=True):
    """The audit row of this request cannot be written, so nothing was changed or returned. Try again later."""


class SchemaOutdated(DatabaseUnavailable):
    """The database schema is older than this version needs. Run `carina migrate`."""

    code = "schema_outdated"


class ObjectStoreUnavailable(TransientError):
    """The object store does not answer."""

    code = "object_store_unavailable"
    counts = False
    places = Place.REQUEST | Place.JOB | Place.FILE | Place.TASK | Place.HEALTH

    @property
    def public_detail(self) -> str:
        """The kind of error only: the detail names hosts, buckets, paths and permissions."""
        return self.meaning()


class ObjectStoreBusy(ObjectStoreUnavailable):
    """The object store has too many requests."""

    code = "object_store_busy"


class ObjectStoreRefused(ObjectStoreUnavailable):
    """The object store refuses access: check its credentials, permissions, bucket and region.

    It uses up no attempt of a job: work continues when an operator has corrected the settings.
    """

    code = "object_store_refused"


class BucketMissing(ObjectStoreRefused):
    """The bucket does not exist."""

    code = "bucket_missing"


class ClockSkew(ObjectStoreUnavailable):
    """The clocks of this machine and of the object store differ by too much. Synchronize them."""

    code = "clock_skew"


class ObjectMissing(TransientError):
    """The object store lacks an object that the database refers to."""

    code = "object_missing"


class ObjectCorrupt(TransientError):
    """The content of an object does not match its digest in the database."""

    code = "object_corrupt"


class HintNotSent(TransientError):
    """Redis did not accept a message. The sweep sends it again."""

    code = "hint_not_sent"
    counts = False
    places = Place.HEALTH


class DecoderProcessLost(TransientError):
    """The process that decoded this image crashed or ran out of time."""

    code = "decoder_process_lost"
    places = Place.JOB


class DetectionFailed(TransientError):
    """The model failed on this image."""

    code = "detection_failed"
    places = Place.JOB


class DeviceOutOfMemory(TransientError):
    """The GPU has too little memory for a batch of this size. Lower `CARINA_BATCH_SIZE`."""

    code = "device_out_of_memory"
    places = Place.JOB


class ModelUnusable(TransientError):
    """The job's model cannot be loaded."""

    code = "model_unusable"
    places = Place.JOB


class NoActiveModel(TransientError):
    """No model is active, so nothing is detected. Promote a model."""

    code = "no_active_model"
    counts = False
    places = Place.JOB
