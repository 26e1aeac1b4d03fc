"""DICOM files made for a test: the pixels, the packing and any element are the test's to choose."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRBigEndian, ExplicitVRLittleEndian

MAX_PIXELS = 64_000_000


def make_dicom(
    pixels: NDArray[np.integer],
    *,
    bits: int | None = None,
    syntax: str = ExplicitVRLittleEndian,
    frame: bytes | bytearray | None = None,
    **elements: object,
) -> bytes:
    """A whole file with `pixels` [H, W] as they are, or with `frame` as the one frame of a compressed syntax.

    `elements` replaces or, where a value is None, removes elements of the header.
    """
    allocated = 8 * pixels.itemsize
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.StudyInstanceUID = "1.2.3"
    dataset.PatientName = "Secret^Patient"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored = allocated, bits or allocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset.PixelData = (
        encapsulate([bytes(frame)]) if frame else pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    )
    dataset["PixelData"].VR = "OB" if frame or allocated == 8 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def make_image(height_px: int = 96, width_px: int = 80, *, bits: int = 12) -> NDArray[np.uint16]:
    """A smooth image with some noise that uses all of `bits`, uint16 [H, W]."""
    down, across = np.mgrid[0 : 1 : height_px * 1j, 0 : 1 : width_px * 1j]
    noise = np.random.default_rng(7).normal(0, 0.01, (height_px, width_px))
    image = np.clip(0.5 + 0.4 * np.sin(5 * down) * np.cos(4 * across) + noise, 0, 1) * (2**bits - 1)
    image.flat[:2] = 0, 2**bits - 1
    return np.asarray(np.rint(image), np.uint16)
