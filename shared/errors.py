"""Every error that Carina raises on purpose, in one tree.

A *permanent* error says that the same input will fail again: the job is `rejected` under the error's stable `code`.
A *transient* error says that trying again may help: the job goes back to its stage with backoff. A *request* error is
an answer to an HTTP client. Errors of botocore, SQLAlchemy, pydicom and redis become one of these in their adapter.
"""

from collections.abc import Sequence
from uuid import UUID


class CarinaError(Exception):
    """Something in Carina went wrong."""

    #: Stable, snake_case; part of the API. Never reuse a code for another meaning.
    code = "internal_error"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or (type(self).__doc__ or "").strip())

    @property
    def detail(self) -> str:
        """One sentence for an operator; never holds a patient's data or a file's name."""
        return str(self)

    @property
    def public_detail(self) -> str:
        """One sentence for clients, which says nothing of the servers and files behind the API."""
        return self.detail


# --- the input is unfit: never retried -------------------------------------------------------------------------------


class PermanentError(CarinaError):
    """The input cannot be processed, however often it is tried."""

    code = "unfit_input"


class EmptyFile(PermanentError):
    """The file holds no bytes."""

    code = "empty_file"


class UnsupportedFileType(PermanentError):
    """The file is neither DICOM, PNG nor JPEG."""

    code = "unsupported_file_type"


class MalformedDicom(PermanentError):
    """The DICOM header cannot be read."""

    code = "malformed_dicom"


class InvalidUid(PermanentError):
    """A UID of the DICOM object is longer than 64 characters, or has characters that no UID has."""

    code = "invalid_uid"


class MissingUid(PermanentError):
    """The instance lacks its StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID or SOPClassUID."""

    code = "missing_uid"


class NotAnImage(PermanentError):
    """The DICOM object holds no image (a report, a waveform, a directory, or no pixel data)."""

    code = "not_an_image"


class MultiFrameImage(PermanentError):
    """The image has more than one frame; a chest radiograph has one."""

    code = "multi_frame"


class ColourImage(PermanentError):
    """The image is in colour; a chest radiograph is grey."""

    code = "colour_image"


class ImageTooSmall(PermanentError):
    """The image has too few pixels to show a chest."""

    code = "image_too_small"


class ImageTooLarge(PermanentError):
    """The image claims more pixels than `CARINA_MAX_IMAGE_PIXELS`."""

    code = "image_too_large"


class UnsupportedTransferSyntax(PermanentError):
    """No decoder is at hand for the file's transfer syntax."""

    code = "unsupported_transfer_syntax"


class UndecodablePixelData(PermanentError):
    """The pixel data cannot be decoded, or does not match the header."""

    code = "undecodable_pixel_data"


class NotDeidentifiable(PermanentError):
    """The file cannot be taken apart well enough to de-identify it, so nothing of it was kept."""

    code = "not_deidentifiable"


class DecoderCrashed(PermanentError):
    """A native decoder crashed or hung on this image, also when it was tried alone."""

    code = "decoder_crashed"


class InvalidModelFile(PermanentError):
    """The model file cannot be used."""

    code = "invalid_model_file"


class UnsuitableImage(PermanentError):
    """The image is no frontal chest radiograph that findings could be read from."""

    code = "unsuitable_image"


class NotARadiograph(UnsuitableImage):
    """By its header the image was made by another kind of device than one for radiographs."""

    code = "not_a_radiograph"


class NotAChest(UnsuitableImage):
    """The image shows another part of the body, or nothing that looks like a chest."""

    code = "not_a_chest"


class LateralView(UnsuitableImage):
    """By its header the image was taken from the side."""

    code = "lateral_view"


class RotatedImage(UnsuitableImage):
    """The chest lies on its side or upside down."""

    code = "rotated"


class EmptyExposure(UnsuitableImage):
    """Nothing was exposed: the image has next to no contrast."""

    code = "empty_exposure"


class ClippedExposure(UnsuitableImage):
    """Much of the image is black or white, where findings are lost."""

    code = "clipped_exposure"


class FileTooLarge(PermanentError):
    """The file is larger than `CARINA_MAX_UPLOAD_BYTES`, which no radiograph is."""

    code = "file_too_large"


# --- the upload is not what was announced: to be sent again ----------------------------------------------------------


class UploadError(CarinaError):
    """What arrived is not the file that was announced; it may be sent again."""

    code = "bad_upload"


class NotUploaded(UploadError):
    """The file was announced, but never arrived."""

    code = "not_uploaded"


class SizeMismatch(UploadError):
    """The file that arrived is shorter or longer than announced."""

    code = "size_mismatch"


class DigestMismatch(UploadError):
    """The file that arrived has another SHA-256 than announced."""

    code = "digest_mismatch"


# --- the world is unwell: retried with backoff -----------------------------------------------------------------------


class TransientError(CarinaError):
    """Something that the job needs is not there right now."""

    code = "temporarily_unavailable"
    #: Whether the try uses up one of the job's attempts; an outage of a server does not.
    counts = True


class DatabaseUnavailable(TransientError):
    """PostgreSQL does not answer."""

    code = "database_unavailable"
    counts = False


class AuditUnavailable(DatabaseUnavailable):
    """The audit row of this request cannot be written, so nothing is changed or shown; try again later."""


class ObjectStoreUnavailable(TransientError):
    """The object store does not answer."""

    code = "object_store_unavailable"
    counts = False

    @property
    def public_detail(self) -> str:
        """What kind of error it is: the detail names hosts, buckets, paths and permissions."""
        return (type(self).__doc__ or self.code).partition("\n")[0]


class ObjectStoreBusy(ObjectStoreUnavailable):
    """The object store has too many requests."""

    code = "object_store_busy"


class ObjectStoreRefused(ObjectStoreUnavailable):
    """The object store does not let Carina in: its credentials, permissions, bucket or region are wrong.

    It costs no job an attempt: an operator mends it, and the work goes on.
    """

    code = "object_store_refused"


class BucketMissing(ObjectStoreRefused):
    """The bucket does not exist."""

    code = "bucket_missing"


class ClockSkew(ObjectStoreUnavailable):
    """The clocks of this machine and of the object store differ by too much."""

    code = "clock_skew"


class ObjectMissing(TransientError):
    """The object store does not hold an object that a row names."""

    code = "object_missing"


class ObjectCorrupt(TransientError):
    """An object's bytes do not match the digest that its row names."""

    code = "object_corrupt"


class SchemaOutdated(DatabaseUnavailable):
    """The database's schema is older than this version needs; run `carina migrate`."""

    code = "schema_outdated"


class HintNotSent(TransientError):
    """Redis did not take a hint; the sweep will send it again."""

    code = "hint_not_sent"
    counts = False


class RedisClusterUnsupported(CarinaError):
    """Carina does not work with a Redis Cluster; CARINA_REDIS_URL must name one server, or Sentinels."""

    code = "redis_cluster_unsupported"


class DecoderProcessLost(TransientError):
    """The process that was decoding this image crashed or ran out of time."""

    code = "decoder_process_lost"


class DetectionFailed(TransientError):
    """The forward pass failed on this image."""

    code = "detection_failed"


class DeviceOutOfMemory(TransientError):
    """The device has too little memory for a batch of this size."""

    code = "device_out_of_memory"


class ModelUnusable(TransientError):
    """The model that the job is to run under cannot be loaded."""

    code = "model_unusable"


class NoActiveModel(TransientError):
    """No model is promoted, so nothing can be detected yet."""

    code = "no_active_model"
    counts = False


# --- the request is wrong: answered, never retried by us -------------------------------------------------------------


class RequestError(CarinaError):
    """The request cannot be answered as it stands."""

    code = "bad_request"
    status = 400
    #: After how many seconds it may be sent again; None: not as it is.
    retry_after_s: int | None = None
    #: The parameter at fault, such as `gate.least_gain`, so that a form can say so beside its field.
    parameter: str | None = None

    def __init__(self, detail: str | None = None, *, parameter: str | None = None) -> None:
        super().__init__(detail)
        self.parameter = parameter or self.parameter


class Unauthorized(RequestError):
    """The request carries no valid API key."""

    code = "unauthorized"
    status = 401


class KeyExpired(Unauthorized):
    """The API key has expired."""

    code = "key_expired"


class Forbidden(RequestError):
    """The API key lacks the scope that this route needs."""

    code = "forbidden"
    status = 403


class NotFound(RequestError):
    """There is no such thing in this project."""

    code = "not_found"
    status = 404
    #: The ids of things that may have been meant.
    candidates: Sequence[UUID] = ()


class NotReady(RequestError):
    """The thing exists, but its result does not yet."""

    code = "not_ready"
    status = 409


class LimitExceeded(RequestError):
    """The request is larger than a limit allows."""

    code = "limit_exceeded"
    status = 413

    def __init__(self, limit: str, most: int) -> None:
        super().__init__(f"The request is larger than {limit} allows, which is {most}.")
        #: The setting's name.
        self.limit = limit


class InvalidRequest(RequestError):
    """A parameter of the request is not valid."""

    code = "invalid_request"
    status = 422


class NoFiles(RequestError):
    """The request is no multipart form with at least one file in its field `files`."""

    code = "no_files"


class UnexpectedFile(RequestError):
    """The form holds a file in another field than `files`."""

    code = "unexpected_file"


class MalformedUpload(RequestError):
    """The multipart form cannot be read."""

    code = "malformed_upload"


class JobIsFinal(RequestError):
    """The job has come to its end and cannot be cancelled."""

    code = "job_is_final"
    status = 409


class UploadCutShort(RequestError):
    """The body ended before it was complete; nothing of the unfinished file was kept."""

    code = "upload_cut_short"
    status = 400


# --- Carina is set up wrongly: said when it starts --------------------------------------------------------------------


class InvalidSettings(CarinaError):
    """A setting is missing or wrong."""

    code = "invalid_settings"


class DecoderUnconfined(CarinaError):
    """A decoder process would run without a protection that this installation requires."""

    code = "decoder_unconfined"


class ProxyUnusable(CarinaError):
    """The proxy that the environment names cannot be used. HTTP and HTTPS proxies can; SOCKS needs `httpx[socks]`."""

    code = "proxy_unusable"


class ChestClassifierUnusable(CarinaError):
    """The chest classifier cannot be loaded."""

    code = "chest_classifier_unusable"
