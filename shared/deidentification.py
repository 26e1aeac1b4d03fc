"""De-identification at intake: PS3.15 annex E's Basic Application Level Confidentiality Profile, for one file.

The same file gives the same bytes under the same key, so that sending it again is a duplicate; the same UID or patient
gives the same pseudonym, so that studies and patients stay together. Pixels are not touched: text that is burned into
them stays. Where the profile leaves a choice, and where it says nothing, this removes rather than keeps.
"""

import base64
import hmac
import re
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from typing import Any, Literal

import PIL.Image
from pydicom.datadict import dictionary_has_tag, dictionary_VR, get_entry
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID
from pydicom.valuerep import VALIDATORS

from shared.errors import PermanentError, UndecodablePixelData
from shared.imaging.dicom_file import DicomFile, quietly, read_dicom
from shared.imaging.header import DICOM, PNG, PREFIX_BYTES, sniff_media_type
from shared.imaging.picture_header import bare_png, read_picture_header

#: CID 7050 of PS3.16.
METHOD = ("113100", "DCM", "Basic Application Confidentiality Profile")
#: What is removed unless the profile's table says otherwise: free text, names, times, places, and what nobody knows.
_TELLING_VRS = {"AE", "AS", "DA", "DT", "LT", "PN", "ST", "TM", "UC", "UN", "UR", "UT"}
_NUMBER_VRS = {"DS", "IS"}  # numbers, once parsed
_CONTROL = re.compile(r"[\x00-\x1a\x1c-\x1f]")  # but for the escape that changes the character set
_PATIENT_GROUP = 0x0010
_EXIF_ORIENTATION = 0x0112

Action = Literal["remove", "empty", "replace", "uid", "references"]


class NotDeidentifiable(PermanentError):
    """The file cannot be taken apart well enough to de-identify it, so nothing of it was kept."""

    code = "not_deidentifiable"


class Pseudonyms:
    """Stand-ins that follow from a project's key: always the same, and nobody without the key can tell from what."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def uid(self, original: str) -> str:
        """A UID for a UID (PS3.5 annex B.2); those that a standard registers stay as they are."""
        if UID(original).name != original:
            return original
        return f"2.25.{int.from_bytes(self._digest(original)[:16], 'big')}"

    def identifier(self, keyword: str, original: str) -> str:
        """16 capitals and digits for a patient's, a study's or a device's number."""
        return base64.b32encode(self._digest(f"{keyword} {original}")[:10]).decode()

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode(), "sha256")


def deidentify(data: bytes, key: bytes, *, max_bytes: int) -> bytes:
    """Return the file without what tells whose it is; a deflated data set is inflated to `max_bytes` at most.

    Raises `NotDeidentifiable`, `UndecodablePixelData` where the file ends too early, and the errors of `read_dicom`.
    """
    media_type = sniff_media_type(data)
    if media_type == DICOM:
        return _deidentify_dicom(data, Pseudonyms(key), max_bytes)
    return bare_png(data) if media_type == PNG else b"".join(_jpeg_segments(data))


# --- DICOM -----------------------------------------------------------------------------------------------------------


def _deidentify_dicom(data: bytes, pseudonyms: Pseudonyms, max_bytes: int) -> bytes:
    file = read_dicom(data, with_pixels=True, max_bytes=max_bytes, kept=None)
    with quietly(NotDeidentifiable):
        dataset = file.dataset
        if "PixelData" not in dataset:
            raise UndecodablePixelData
        drawn_upon = _is_drawn_upon(dataset)
        _clean(dataset, pseudonyms)
        _cut_to_the_pixels(file)
        if drawn_upon:
            dataset.BurnedInAnnotation = "YES"
        _say_how(dataset)
        dataset.file_meta = _file_meta(file)
        dataset.preamble = bytes(128)
        buffer = BytesIO()
        dcmwrite(buffer, dataset)
        return buffer.getvalue()


def _clean(dataset: Dataset, pseudonyms: Pseudonyms) -> None:
    """Do to every element, also of sequences, what the profile's table says, or what is safe where it says nothing."""
    for tag in list(dataset.keys()):
        action = _actions().get(tag)
        if not dictionary_has_tag(tag) or tag.group < 8 or action == "remove":
            # Private, of a repeating group (overlays, curves), a group's length, or newer than the dictionary.
            del dataset[tag]
        elif action == "uid":
            _replace(dataset, tag, "\\".join(map(pseudonyms.uid, _texts(dataset, tag))))
        elif action in ("empty", "replace"):
            _hide(dataset, tag, action, pseudonyms)
        else:
            _keep(dataset, tag, pseudonyms, listed=action is not None)


def _hide(dataset: Dataset, tag: BaseTag, action: str, pseudonyms: Pseudonyms) -> None:
    """Put nothing, a dummy or a pseudonym in an element's place."""
    from dicomanonymizer.simpledicomanonymizer import replace_element

    vr, _, _, _, keyword = get_entry(tag)
    texts = _texts(dataset, tag)
    if vr in ("LO", "SH") and keyword.endswith(("ID", "Number")) and any(texts):
        _replace(dataset, tag, pseudonyms.identifier(keyword, "\\".join(texts)))
    elif vr == "SQ":
        dataset[tag] = DataElement(tag, vr, Sequence())
    else:
        _replace(dataset, tag, None)
        if action == "replace" and any(texts):
            replace_element(dataset[tag])


def _keep(dataset: Dataset, tag: BaseTag, pseudonyms: Pseudonyms, *, listed: bool) -> None:
    """Keep an element that fits its own definition, its items cleaned and its UIDs replaced; remove any other."""
    vrs, multiplicity, _, retired, keyword = get_entry(tag)
    try:
        element = dataset[tag]
        values = list(element.value) if isinstance(element.value, MultiValue | list) else [element.value]
    except Exception:  # noqa: BLE001 - no value of its kind: nobody needs it, and it may hold anything
        del dataset[tag]
        return
    telling = retired or element.VR in _TELLING_VRS or tag.group == _PATIENT_GROUP
    # Without a VR in the file, one of several stays open.
    if element.VR not in {vrs, *vrs.split(" or ")} or (telling and not listed):
        del dataset[tag]
    elif element.VR == "SQ":
        for item in element.value:
            _clean(item, pseudonyms)
    elif keyword == "PixelData":
        pass
    elif not _fits(element.VR, values, multiplicity):
        del dataset[tag]
    elif element.VR == "UI" and not keyword.endswith("SOPClassUID"):
        _replace(dataset, tag, "\\".join(map(pseudonyms.uid, _texts(dataset, tag))))


def _fits(vr: str, values: list[Any], multiplicity: str) -> bool:
    """Whether there are no more values than there may be, and each is one of its kind, not a stretch of the file."""
    most = re.split("-", multiplicity)[-1]
    if most.isdigit() and len(values) > int(most):
        return False
    texts = [str(value) for value in values if isinstance(value, str) and value]
    if vr in _NUMBER_VRS or not texts:
        return not texts
    fits: Callable[[str, str], tuple[bool, str]] = VALIDATORS[vr]
    return all(fits(vr, text)[0] and not _CONTROL.search(text) for text in texts)


def _replace(dataset: Dataset, tag: BaseTag, value: str | None) -> None:
    dataset[tag] = DataElement(tag, dictionary_VR(tag), value)


def _texts(dataset: Dataset, tag: BaseTag) -> list[str]:
    """An element's values as they are written, whatever they should be."""
    value: Any = dataset.get_item(tag).value
    if isinstance(value, bytes):
        return [part.strip(" \0") for part in value.decode("latin-1").split("\\")]
    if isinstance(value, Sequence) or value is None:
        return []
    return [str(part).strip(" \0") for part in (value if isinstance(value, MultiValue | list) else [value])]


def _is_drawn_upon(dataset: Dataset) -> bool:
    """Whether overlays lie in unused bits of the pixels (retired): to remove their elements leaves them there."""
    places = [tag for tag in dataset.keys() if tag.group & 0xFF01 == 0x6000 and tag.elem == 0x0102]  # noqa: SIM118
    return any(dataset[tag].value for tag in places)


def _cut_to_the_pixels(file: DicomFile) -> None:
    """Drop what follows the last row of pixels that are not compressed."""
    dataset = file.dataset
    element = dataset["PixelData"]
    if not element.is_undefined_length:
        bits = (file.integer("Rows") or 0) * (file.integer("Columns") or 0) * (file.integer("BitsAllocated") or 0)
        bits *= file.integer("SamplesPerPixel") or 1
        byte_count = -(-bits // 16) * 2
        if len(element.value) > byte_count:
            element.value = element.value[:byte_count]


def _say_how(dataset: Dataset) -> None:
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "DICOM PS3.15 Basic Application Level Confidentiality Profile"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = METHOD
    dataset.DeidentificationMethodCodeSequence = Sequence([code])
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


def _file_meta(file: DicomFile) -> FileMetaDataset:
    """File meta information that follows from the data set alone (PS3.10 section 7.1)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(file.text("SOPClassUID") or "")
    meta.MediaStorageSOPInstanceUID = UID(file.text("SOPInstanceUID") or "")
    meta.TransferSyntaxUID = UID(file.transfer_syntax_uid)
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    meta.ImplementationVersionName = "CARINA"
    return meta


@cache
def _actions() -> dict[BaseTag, Action]:
    """What the profile's table E.1-1 says of each element; what it leaves to the object's definition suits a film."""
    from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table

    actions: dict[BaseTag, Action] = {}
    columns: list[tuple[list[tuple[int, ...]], Action]] = [
        (table.X_TAGS, "remove"),
        (table.U_TAGS, "uid"),
        (table.Z_TAGS, "empty"),
        (table.X_Z_TAGS, "empty"),
        (table.X_Z_D_TAGS, "empty"),  # no film needs a value in any of these
        (table.D_TAGS, "replace"),
        (table.Z_D_TAGS, "replace"),
        (table.X_D_TAGS, "replace"),
        (table.X_Z_U_STAR_TAGS, "references"),
    ]
    for tags, action in columns:
        # Repeating groups are no part of the dictionary's plain tags, so they go in any case.
        actions |= {BaseTag(tag[0] << 16 | tag[1]): action for tag in tags if len(tag) == 2}
    return actions


# --- PNG and JPEG ----------------------------------------------------------------------------------------------------

_SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
#: Frame headers, tables and scans (ITU-T T.81 table B.1); not application data, comments or reserved markers.
_JPEG_MARKERS = {*range(0xC0, 0xD0), *range(0xDA, 0xE0)} - {0xC8}


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """Yield a JPEG's segments that make its pixels, and how it is to be turned and its colours are to be read."""
    yield data[:2] + _orientation(data)
    at = 2
    while True:
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        marker = data[at : at + 2]
        if marker == b"\xff\xd9":
            yield marker
            return
        end = _segment_end(data, at)
        yield _as_kept(data[at:end])
        at = end


def _segment_end(data: bytes, start: int) -> int:
    """Where the segment ends that begins here; a scan's compressed data belong to it."""
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    if data[start : start + 1] != b"\xff" or end - start < 4 or end > len(data):
        raise UndecodablePixelData
    if data[start + 1] != 0xDA:
        return end
    scan_end = _SCAN_END.search(data, end)
    if scan_end is None:
        raise UndecodablePixelData
    return scan_end.start()


def _as_kept(segment: bytes) -> bytes:
    if segment[1] in _JPEG_MARKERS:
        return segment
    if segment[1] == 0xE0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18:
        return b"\xff\xe0\x00\x10" + segment[4:16] + b"\0\0"  # without its thumbnail
    if segment[1] == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16:
        return b"\xff\xee\x00\x0e" + segment[4:16]
    return b""


def _orientation(data: bytes) -> bytes:
    """An EXIF segment that says how the picture is to be turned, and nothing else."""
    turn = read_picture_header(data[:PREFIX_BYTES]).orientation
    if turn == 1:
        return b""
    exif = PIL.Image.Exif()
    exif[_EXIF_ORIENTATION] = turn
    payload = exif.tobytes()
    return b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload
