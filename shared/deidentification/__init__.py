"""De-identifies one file at intake with the Basic Application Level Confidentiality Profile (PS3.15 annex E).

A new file is built from the parts that are known to be harmless: elements on an allow-list, and the parts of the pixel
data that its format defines. With the same key, the same file gives the same bytes, so sending it again gives a
duplicate. The same UID or patient gives the same pseudonym, so studies and patients stay together. Text burned into the
pixels is not removed.
"""

from shared.deidentification.dicom import deidentify_dicom
from shared.deidentification.payload.jpeg import bare_jpeg
from shared.deidentification.payload.png import bare_png
from shared.deidentification.pseudonyms import Pseudonyms
from shared.imaging.header import DICOM, PNG, PREFIX_BYTES, sniff_media_type
from shared.imaging.picture_header import read_picture_header

#: An APP1 segment with EXIF data that contains only the orientation: a TIFF directory of one entry (TIFF 6.0 section
#: 2).
_EXIF = b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%b\0\0\0\0\0\0"


def deidentify(data: bytes, key: bytes, *, max_bytes: int) -> bytes:
    """Return the file without identifying data; a deflated data set is inflated to at most `max_bytes`.

    Raises `NotDeidentifiable`, `UndecodablePixelData` if the pixel data is cut off or cannot be parsed, and the errors
    of `read_dicom` and `check_kind`.
    """
    media_type = sniff_media_type(data)
    if media_type == DICOM:
        return deidentify_dicom(data, Pseudonyms(key), max_bytes=max_bytes)
    if media_type == PNG:
        return bare_png(data, max_bytes=max_bytes)
    turn = read_picture_header(data[:PREFIX_BYTES]).orientation
    return bare_jpeg(data, is_picture=True, orientation=b"" if turn == 1 else _EXIF % bytes([turn]))
