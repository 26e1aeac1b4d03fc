"""Errors of a file: it is unfit and never tried again, or it did not arrive as announced and may be sent again."""

from shared.errors.base import PermanentError, Place, UploadError


class EmptyFile(PermanentError):
    """The file is empty."""

    code = "empty_file"


class UnsupportedFileType(PermanentError):
    """The file is not a DICOM, PNG or JPEG file."""

    code = "unsupported_file_type"


class MalformedDicom(PermanentError):
    """The DICOM header cannot be read. Export the file again."""

    code = "malformed_dicom"


class InvalidUid(PermanentError):
    """A UID in the DICOM file is not valid: it is longer than 64 characters, begins with a dot, or contains other
    characters than letters, digits, `.`, `-` and `_`."""

    code = "invalid_uid"


class MissingUid(PermanentError):
    """The DICOM file lacks its StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID or SOPClassUID."""

    code = "missing_uid"


class NotAnImage(PermanentError):
    """The DICOM file contains no image: it is a report, a waveform or a directory, or it has no pixel data."""

    code = "not_an_image"


class MultiFrameImage(PermanentError):
    """The image has more than one frame. Send radiographs with one frame."""

    code = "multi_frame"


class ColourImage(PermanentError):
    """The image is in colour. Send a greyscale radiograph."""

    code = "colour_image"


class ImageTooSmall(PermanentError):
    """The image has too few pixels to show a chest."""

    code = "image_too_small"


class ImageTooLarge(PermanentError):
    """The image has more pixels than `CARINA_MAX_IMAGE_PIXELS`."""

    code = "image_too_large"


class UnsupportedTransferSyntax(PermanentError):
    """Carina has no decoder for the file's transfer syntax. Convert the file to another transfer syntax."""

    code = "unsupported_transfer_syntax"


class UndecodablePixelData(PermanentError):
    """The pixel data cannot be decoded, or does not match the header. Export the file again."""

    code = "undecodable_pixel_data"


class NotDeidentifiable(PermanentError):
    """The file cannot be de-identified because it cannot be parsed completely. Nothing of it was kept."""

    code = "not_deidentifiable"


class DecoderCrashed(PermanentError):
    """The decoder crashed or did not end on this image, also when the image was decoded alone."""

    code = "decoder_crashed"
    places = Place.JOB


class InvalidModelFile(PermanentError):
    """The model file cannot be used: it is damaged or was made for another version of Carina."""

    code = "invalid_model_file"
    places = Place.JOB | Place.TASK | Place.COMMAND_LINE


class UnsuitableImage(PermanentError):
    """The image is not a frontal chest radiograph on which findings can be detected; its code is that of a flag."""

    code = "unsuitable_image"
    places = Place.JOB

    def __init__(self, flag: str, meaning: str) -> None:
        super().__init__(meaning)
        self.code = flag


class FileTooLarge(PermanentError):
    """The file is larger than `CARINA_MAX_UPLOAD_BYTES`."""

    code = "file_too_large"
    places = Place.FILE


class NotUploaded(UploadError):
    """The file was announced, but has not arrived completely. Upload it again."""

    code = "not_uploaded"


class SizeMismatch(UploadError):
    """The file that arrived has another size than announced. Upload it again."""

    code = "size_mismatch"


class DigestMismatch(UploadError):
    """The file that arrived has another SHA-256 digest than announced. Upload it again."""

    code = "digest_mismatch"
