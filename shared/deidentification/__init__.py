"""De-identification at intake: PS3.15 annex E's Basic Application Level Confidentiality Profile, for one file.

A new file is made of the parts that are known to be harmless: elements by an allow-list, pixel data by the grammar of
its format. The same file gives the same bytes under the same key, so that sending it again is a duplicate; the same UID
or patient gives the same pseudonym, so that studies and patients stay together. Text that is burned into the pixels
stays.
"""

from shared.deidentification.dicom import deidentify_dicom
from shared.deidentification.payload.jpeg import bare_jpeg
from shared.deidentification.payload.png import bare_png
from shared.deidentification.pseudonyms import Pseudonyms
from shared.imaging.header import DICOM, PNG, PREFIX_BYTES, sniff_media_type
from shared.imaging.picture_header import read_picture_header

#: EXIF that holds an orientation alone: a TIFF directory of one entry (TIFF 6.0 section 2), and before it APP1.
_EXIF = b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%b\0\0\0\0\0\0"


def deidentify(data: bytes, key: bytes, *, max_bytes: int) -> bytes:
    """Return the file without what tells whose it is; a deflated data set is inflated to `max_bytes` at most.

    Raises `NotDeidentifiable`, `UndecodablePixelData` where its pixel data ends too early or cannot be taken apart, and
    the errors of `read_dicom` and of `check_kind`.
    """
    media_type = sniff_media_type(data)
    if media_type == DICOM:
        return deidentify_dicom(data, Pseudonyms(key), max_bytes=max_bytes)
    if media_type == PNG:
        return bare_png(data, max_bytes=max_bytes)
    turn = read_picture_header(data[:PREFIX_BYTES]).orientation
    return bare_jpeg(data, is_picture=True, orientation=b"" if turn == 1 else _EXIF % bytes([turn]))
