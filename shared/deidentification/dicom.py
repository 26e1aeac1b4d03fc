"""Writes a new DICOM file from the kept elements and pixels (PS3.10 section 7)."""

import hashlib
from io import BytesIO

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import UID, SecondaryCaptureImageStorage

from shared.deidentification.dataset import keep_elements
from shared.deidentification.payload.cells import stored_bits
from shared.deidentification.payload.frame import bare_frame
from shared.deidentification.pseudonyms import Pseudonyms
from shared.deidentification.rules import RULES
from shared.errors import NotDeidentifiable, UndecodablePixelData
from shared.imaging.cells import read_layout
from shared.imaging.dicom_file import DicomFile, quietly, read_dicom
from shared.imaging.frames import swap_words
from shared.imaging.kind import read_photometric
from shared.imaging.transfer_syntaxes import ENCAPSULATED, IN_CELLS, PACKINGS

#: From CID 7050 of PS3.16. No option is stated, because text burned into the pixels is not removed.
CODE = ("113100", "DCM", "Basic Application Confidentiality Profile")
#: Includes the version of the rules, which shows what an older version of Carina removed.
METHOD = "DICOM PS3.15 Basic Confidentiality Profile, Carina rules 2"
#: The implementation class UID (PS3.7 annex D.3.3.2), from a UUID.
IMPLEMENTATION = UID("2.25.269100978752813188102912378351372199732")
_PIXEL_DATA = 0x7FE00010
#: OverlayBitPosition of the 16 possible overlays (PS3.5 section 7.6).
_OVERLAY_BIT_POSITIONS = range(0x60000102, 0x60200102, 0x20000)
_READ = [*RULES, *_OVERLAY_BIT_POSITIONS]


def deidentify_dicom(data: bytes, pseudonyms: Pseudonyms, *, max_bytes: int) -> bytes:
    """Return a de-identified file in the same transfer syntax; raises the errors of `deidentify`."""
    file = read_dicom(data, max_bytes=max_bytes, kept=_READ, lenient=True)
    with quietly(NotDeidentifiable):
        if not file.reaches_pixel_data:
            raise UndecodablePixelData
        frame = bare_frame(file)
        dataset = keep_elements(file.dataset, pseudonyms, little_endian=file.little_endian)
        if (photometric := read_photometric(file)) is not None:
            dataset.PhotometricInterpretation = photometric
        _name_object(dataset, pseudonyms, data)
        if _is_drawn_upon(file):
            dataset.BurnedInAnnotation = "YES"
        _say_how(dataset)
        dataset[_PIXEL_DATA] = _pixel_data(file, frame)
        dataset.file_meta = _file_meta(dataset, file.transfer_syntax_uid)
        dataset.preamble = bytes(128)
        buffer = BytesIO()
        dcmwrite(buffer, dataset, enforce_file_format=True)
        return buffer.getvalue()


def _name_object(dataset: Dataset, pseudonyms: Pseudonyms, data: bytes) -> None:
    """Add a SOP class or a SOP instance UID if it is missing; the standard requires both."""
    if not dataset.get("SOPClassUID"):
        dataset.SOPClassUID = SecondaryCaptureImageStorage
    if not dataset.get("SOPInstanceUID"):
        dataset.SOPInstanceUID = pseudonyms.uid(hashlib.sha256(data).hexdigest())


def _is_drawn_upon(file: DicomFile) -> bool:
    """Return whether kept bits of the pixels hold an overlay (retired); only its elements are removed."""
    positions = [file.dataset[tag].value for tag in _OVERLAY_BIT_POSITIONS if tag in file.dataset]
    if PACKINGS[file.transfer_syntax_uid] not in IN_CELLS:
        return any(positions)
    stored = stored_bits(read_layout(file, 1, 1)) if positions else 0
    return any(position and (not isinstance(position, int) or stored >> position & 1) for position in positions)


def _say_how(dataset: Dataset) -> None:
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = CODE
    dataset.DeidentificationMethodCodeSequence = Sequence([code])
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


def _pixel_data(file: DicomFile, frame: bytes) -> DataElement:
    if file.transfer_syntax_uid in ENCAPSULATED:
        return DataElement(_PIXEL_DATA, "OB", encapsulate([frame]), is_undefined_length=True)
    # 8-bit cells can be stored in 16-bit words, whose bytes are swapped in big endian.
    place = file.pixel_data
    in_words = file.integer("BitsAllocated") != 8 or (place is not None and place.vr == "OW")
    if in_words and not file.little_endian:
        frame = bytes(swap_words(memoryview(frame)))
    return DataElement(_PIXEL_DATA, "OW" if in_words else "OB", frame)


def _file_meta(dataset: Dataset, transfer_syntax_uid: str) -> FileMetaDataset:
    """Return file meta information derived only from the data set (PS3.10 section 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(dataset.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = "CARINA"
    return meta
