"""Writes a phantom as a DICOM file: Digital X-Ray Image Storage - For Presentation (PS3.3 A.26)."""

import io
import uuid
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from shared.phantoms.canvas import Layer
from shared.phantoms.encoding import NATIVE, UIDS, TransferSyntax, Values, encode_frame, native_bytes
from shared.phantoms.phantom import Phantom

BitsStored = Literal[8, 12, 16]
Photometric = Literal["MONOCHROME1", "MONOCHROME2"]
#: Transfer syntaxes that are common for radiographs, and that other DICOM software reads too.
TRANSFER_SYNTAXES: tuple[TransferSyntax, ...] = (
    "explicit",
    "implicit",
    "deflated",
    "rle",
    "jpeg-lossless",
    "jpeg-ls",
    "jpeg-2000",
    "htj2k",
)
_NAMESPACE = uuid.UUID("6f0a4a52-5f0e-5c0b-8d53-0a4c6b1f9e11")


def stored_values(
    phantom: Phantom, bits_stored: BitsStored, photometric: Photometric
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Quantise to the stored values of a file, [H, W]; they are inverted for MONOCHROME1."""
    top = 2**bits_stored - 1
    values: Layer = np.rint(phantom.pixels * np.float32(top))
    stored = values if photometric == "MONOCHROME2" else top - values
    return stored.astype(np.uint8) if bits_stored == 8 else stored.astype(np.uint16)


def encode_dicom(
    phantom: Phantom,
    *,
    bits_stored: BitsStored = 12,
    photometric: Photometric = "MONOCHROME2",
    transfer_syntax: TransferSyntax = "explicit",
) -> bytes:
    """Write a phantom as a DICOM file; the same arguments give the same bytes."""
    values = stored_values(phantom, bits_stored, photometric)
    variant = f"{values.shape}/{bits_stored}/{photometric}/{transfer_syntax}"
    dataset = describe(phantom.seed, variant, uid.DigitalXRayImageStorageForPresentation)
    dataset.Modality = "DX"
    _describe_projection(dataset)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated = 8 * values.itemsize
    dataset.BitsStored = bits_stored
    dataset.HighBit = bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LOG"
    # In MONOCHROME2, dense tissue is bright, so a higher value means fewer photons.
    dataset.PixelIntensityRelationshipSign = 1 if photometric == "MONOCHROME1" else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits_stored - 1), 2**bits_stored
    dataset.LossyImageCompression = "00"
    dataset.ImagerPixelSpacing = [round(430 / values.shape[0], 4)] * 2
    return write(dataset, values, transfer_syntax)


def describe(seed: int, variant: str, sop_class: uid.UID) -> Dataset:
    """Create a data set with the patient, study and series of a seed; `variant` distinguishes its instances."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = _uid(f"{seed}/{variant}")
    dataset.StudyInstanceUID = _uid(f"{seed}/study")
    dataset.SeriesInstanceUID = _uid(f"{seed}/series/{sop_class}")
    dataset.PatientName = f"Phantom^Seed {seed}"
    dataset.PatientID = f"PHANTOM-{seed}"
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = "20200101"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = dataset.AcquisitionTime = "120000"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = str(seed), 1, 1
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "Carina", "Phantom generator"
    dataset.ImageComments = "Synthetic phantom: no patient was imaged."
    return dataset


def write(dataset: Dataset, values: Values | None, transfer_syntax: TransferSyntax) -> bytes:
    """Return a data set as a DICOM file, with its pixel values in the transfer syntax; None for no pixels."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UIDS[transfer_syntax]
    dataset.file_meta.ImplementationClassUID = _uid("implementation")
    dataset.file_meta.ImplementationVersionName = "CARINA"
    if values is not None:
        _attach(dataset, values, transfer_syntax)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _attach(dataset: Dataset, values: Values, transfer_syntax: TransferSyntax) -> None:
    if transfer_syntax in NATIVE:
        dataset.PixelData = native_bytes(values, big_endian=transfer_syntax == "big-endian")
        dataset["PixelData"].VR = "OB" if values.itemsize == 1 and transfer_syntax != "implicit" else "OW"
        return
    dataset.PixelData = encapsulate([encode_frame(values, dataset.BitsStored, transfer_syntax)])
    dataset["PixelData"].VR = "OB"


def _describe_projection(dataset: Dataset) -> None:
    chest, view = Dataset(), Dataset()
    chest.CodeValue, chest.CodingSchemeDesignator, chest.CodeMeaning = "51185008", "SCT", "Chest"
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "399348003", "SCT", "postero-anterior"
    view.ViewModifierCodeSequence = Sequence()
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.AnatomicRegionSequence, dataset.ViewCodeSequence = Sequence([chest]), Sequence([view])
    dataset.ImageLaterality, dataset.PatientOrientation = "U", ["L", "F"]
    dataset.AcquisitionContextSequence = Sequence()
    dataset.DetectorType = None
    dataset.BurnedInAnnotation = "NO"
    dataset.DerivationDescription = "Synthetic chest radiograph computed from a seed"


def _uid(name: str) -> uid.UID:
    """Derive a UID under 2.25, the root of UIDs from UUIDs (PS3.5 B.2)."""
    return uid.UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")
