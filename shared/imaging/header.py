"""Reads the facts that intake needs before it stores a file: its format, its size and its study."""

import re
from dataclasses import dataclass

from shared.errors import (
    EmptyFile,
    ImageTooLarge,
    ImageTooSmall,
    MalformedDicom,
    MissingUid,
    NotAnImage,
    UnsupportedFileType,
)
from shared.imaging.dicom_file import DicomFile, looks_like_dicom, read_dicom
from shared.imaging.element_names import name_of
from shared.imaging.kind import check_kind
from shared.imaging.picture_header import PNG_SIGNATURE, read_picture_header

DICOM, PNG, JPEG = "application/dicom", "image/png", "image/jpeg"

#: The number of bytes that `read_header` needs; the header of a radiograph is a few KiB.
PREFIX_BYTES = 8 * 1024**2
#: Minimum side length: in a smaller image, no finding is visible.
MIN_SIDE_PX = 64

_NO_IMAGE = "The DICOM object holds no image (it is a report, a waveform or a directory, or damaged): it lacks {}."
_TOO_DEEP = f"The first {PREFIX_BYTES >> 20} MiB of the DICOM object do not say how large its image is."
#: The UIDs that Carina accepts in files, searches and URLs: those of PS3.5 section 9.1, and also letters, hyphens,
#: underscores and leading zeros, which some writers use. The first character is not a dot, because `..` in a URL path
#: has another meaning.
UID_PATTERN = r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,63}"
_UID = re.compile(UID_PATTERN)
#: The UIDs that identify an image.
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")


@dataclass(frozen=True)
class ImageHeader:
    """The header of one uploaded image. Height and width are those of the displayed image."""

    media_type: str
    height_px: int
    width_px: int
    study_instance_uid: str | None
    sop_instance_uid: str | None
    #: None for PNG and JPEG.
    transfer_syntax_uid: str | None
    series_instance_uid: str | None = None
    sop_class_uid: str | None = None
    modality: str | None = None
    #: Whether the pixels show text, according to the header; None if it does not say.
    burned_in_annotation: bool | None = None
    #: Keywords in `IDENTITY` whose value is present but not a valid UID.
    invalid_uids: tuple[str, ...] = ()


def read_header(prefix: bytes, total_bytes: int, *, max_image_pixels: int | None = None) -> ImageHeader:
    """Read the header of a DICOM, PNG or JPEG file of `total_bytes` from its first `PREFIX_BYTES`. Decodes no pixels.

    Raises `EmptyFile`, `UnsupportedFileType`, `MalformedDicom`, `NotAnImage`, `MultiFrameImage`, `ColourImage`,
    `UnsupportedTransferSyntax`, `ImageTooSmall`, `ImageTooLarge` (if `max_image_pixels` is given) and, for an
    unreadable PNG or JPEG header, `UndecodablePixelData`.
    """
    if total_bytes == 0 or not prefix:
        raise EmptyFile
    media_type = sniff_media_type(prefix)
    if media_type == DICOM:
        file = read_dicom(prefix, max_bytes=PREFIX_BYTES)
        return describe_dicom(file, whole=len(prefix) >= total_bytes, max_image_pixels=max_image_pixels)
    height_px, width_px = read_picture_header(prefix).size_px
    check_size(height_px, width_px, max_image_pixels)
    return ImageHeader(media_type, height_px, width_px, None, None, None)


def sniff_media_type(prefix: bytes) -> str:
    """Return the media type according to the first bytes; raises `UnsupportedFileType`."""
    if prefix[128:132] == b"DICM":  # checked first: a preamble may hold the magic number of another format
        return DICOM
    if prefix.startswith(PNG_SIGNATURE):
        return PNG
    if prefix.startswith(b"\xff\xd8\xff"):
        return JPEG
    if looks_like_dicom(prefix):
        return DICOM
    raise UnsupportedFileType


def describe_dicom(file: DicomFile, *, whole: bool, max_image_pixels: int | None) -> ImageHeader:
    """Check that `file` is one grey image, and return its header; raises the errors of `read_header`.

    If `file` is only the first part (not `whole`), the pixel data may follow it.
    """
    if whole and file.is_cut:
        raise MalformedDicom("The DICOM header ends within an element.")
    rows, columns = file.integer("Rows", required=True), file.integer("Columns", required=True)
    missing = [name_of(keyword) for keyword, size in (("Rows", rows), ("Columns", columns)) if not size]
    if not rows or not columns or (whole and not file.reaches_pixel_data):
        missing = missing or [name_of("PixelData")]
        raise NotAnImage(_NO_IMAGE.format(" and ".join(missing)) if whole else _TOO_DEEP)
    check_kind(file)
    check_size(rows, columns, max_image_pixels)
    return ImageHeader(
        media_type=DICOM,
        height_px=rows,
        width_px=columns,
        study_instance_uid=_uid(file, "StudyInstanceUID"),
        sop_instance_uid=_uid(file, "SOPInstanceUID"),
        transfer_syntax_uid=file.transfer_syntax_uid,
        series_instance_uid=_uid(file, "SeriesInstanceUID"),
        sop_class_uid=_uid(file, "SOPClassUID"),
        modality=_code_string(file, "Modality"),
        burned_in_annotation={"YES": True, "NO": False}.get(file.text("BurnedInAnnotation") or ""),
        invalid_uids=tuple(keyword for keyword in IDENTITY if file.text(keyword) and not _uid(file, keyword)),
    )


def check_size(height_px: int, width_px: int, max_image_pixels: int | None) -> None:
    """Raise `ImageTooSmall` or `ImageTooLarge` for a size outside the limits."""
    if min(height_px, width_px) < MIN_SIDE_PX:
        raise ImageTooSmall
    if max_image_pixels is not None and height_px * width_px > max_image_pixels:
        raise ImageTooLarge


def check_identity(header: ImageHeader) -> None:
    """Raise `MissingUid` if one of the UIDs that identify an instance is missing."""
    uids = (header.sop_class_uid, header.sop_instance_uid, header.study_instance_uid, header.series_instance_uid)
    for keyword, uid in zip(IDENTITY, uids, strict=True):
        if uid is None:
            raise MissingUid(f"{name_of(keyword)} is missing.")


def _code_string(file: DicomFile, keyword: str) -> str | None:
    """Return a code string as PS3.5 defines it (CS); any other value counts as absent."""
    value = file.text(keyword)
    return value if value and _CODE.fullmatch(value) else None


def _uid(file: DicomFile, keyword: str) -> str | None:
    """Return a UID that matches `UID_PATTERN`; any other value counts as absent."""
    value = file.text(keyword)
    return value if value and _UID.fullmatch(value) else None
