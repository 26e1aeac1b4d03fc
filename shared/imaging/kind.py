"""Checks the kind of pixels that a DICOM header describes: frames, colour, transfer syntax."""

import re

from shared.errors import ColourImage, MalformedDicom, MultiFrameImage, UnsupportedTransferSyntax
from shared.imaging.dicom_file import DicomFile
from shared.imaging.element_names import name_of
from shared.imaging.transfer_syntaxes import PACKINGS

_GREY = ("MONOCHROME1", "MONOCHROME2")
#: The terms of PS3.3 C.7.6.3.1.2 for colour, including retired ones.
_COLOUR = re.compile(r"RGB|ARGB|CMYK|HSV|XYB|PALETTE.*|YBR.*")


def check_kind(file: DicomFile) -> None:
    """Check that the file is a grey image of one frame in a supported transfer syntax.

    Raises `MultiFrameImage`, `ColourImage`, `UnsupportedTransferSyntax` and, for an unreadable required element,
    `MalformedDicom`.
    """
    if (file.integer("NumberOfFrames") or 1) > 1:
        raise MultiFrameImage
    samples = file.integer("SamplesPerPixel", required=True)
    if samples is not None and samples < 1:
        raise MalformedDicom(f"{name_of('SamplesPerPixel')} is not above 0.")
    if samples not in (1, None):
        raise ColourImage
    read_photometric(file)
    if file.transfer_syntax_uid not in PACKINGS:
        raise UnsupportedTransferSyntax(f"There is no decoder for the file's {name_of('TransferSyntaxUID')}.")


def read_photometric(file: DicomFile) -> str | None:
    """Return `MONOCHROME1` or `MONOCHROME2`, whatever its case, spaces and underscores; None if it is absent.

    Raises `ColourImage` and, for a term that the standard does not define, `MalformedDicom`.
    """
    keyword = "PhotometricInterpretation"
    written = file.text(keyword, required=True)
    if written is None:
        return None
    term = re.sub(r"[\s_]", "", written).upper()
    if term in _GREY:
        if term != written:
            file.remarks.mend(f"{name_of(keyword)} is not written as the standard has it, read as {term}")
        return term
    if _COLOUR.fullmatch(term):
        raise ColourImage
    raise MalformedDicom(f"{name_of(keyword)} has none of the standard's terms.")


def is_signed(file: DicomFile) -> bool:
    """Return whether stored values are signed; without PixelRepresentation they are unsigned."""
    return file.integer("PixelRepresentation", required=True) == 1
