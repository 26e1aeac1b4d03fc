"""The files of the demo: studies in every form that DICOM images come in, and a few unfit files."""

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import numpy as np
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence

from shared.phantoms.dicom import TRANSFER_SYNTAXES, BitsStored, describe, encode_dicom, stored_values, write
from shared.phantoms.phantom import Phantom, make_phantom

#: The first seed of the demo, far from the seeds of training images.
DEMO_SEED = 2_000_000
_DEPTHS: tuple[BitsStored, ...] = get_args(BitsStored)
#: (height, width) in pixels. The lengths of the cycles share no factor, so all combinations with bit depth and transfer
#: syntax occur.
_SIZES_PX = ((1024, 860), (1536, 1280), (1200, 1000), (1400, 1400), (2000, 1664), (1152, 1024), (3000, 3000))


def demo_studies(
    count: int = 24, seed: int = DEMO_SEED, *, negatives: bool = False
) -> Iterator[tuple[str, bytes, Phantom]]:
    """Yield `count` studies as (file name, DICOM file, phantom), made one at a time.

    They cycle over bit depths, photometric interpretations, transfer syntaxes and sizes. With `negatives`, every second
    image is inverted, as from a device that writes a wrong photometric interpretation.
    """
    for index in range(count):
        height_px, width_px = _SIZES_PX[index % len(_SIZES_PX)]
        bits_stored, syntax = _DEPTHS[index % len(_DEPTHS)], TRANSFER_SYNTAXES[index % len(TRANSFER_SYNTAXES)]
        inverted = index // 3 % 2 == 1
        phantom = make_phantom(seed + index, height_px, width_px)
        if negatives and index % 2:
            phantom = replace(phantom, pixels=1 - phantom.pixels)
        file = encode_dicom(
            phantom,
            bits_stored=bits_stored,
            photometric="MONOCHROME1" if inverted else "MONOCHROME2",
            transfer_syntax=syntax,
        )
        yield f"phantom-{index:03d}-{bits_stored}bit-mono{1 if inverted else 2}-{syntax}.dcm", file, phantom


def bad_files() -> list[tuple[str, bytes, str]]:
    """Return files that must be rejected, as (file name, bytes, code of the error in `shared.errors`)."""
    return [
        ("report-without-pixels.dcm", _report(), "not_an_image"),
        ("cut-short.dcm", _cut_short(), "undecodable_pixel_data"),
        ("not-dicom.dcm", b"Dear colleague,\n\nthe image is in the other envelope.\n", "unsupported_file_type"),
        ("colour.dcm", _colour(), "colour_image"),
    ]


def _report() -> bytes:
    dataset = describe(DEMO_SEED, "report", uid.BasicTextSRStorage)
    dataset.Modality = "SR"
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "18748-4", "LN", "Diagnostic Imaging Report"
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = Sequence([title])
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.PerformedProcedureCodeSequence, dataset.ContentSequence = Sequence(), Sequence()
    return write(dataset, None, "explicit")


def _cut_short() -> bytes:
    dataset = dcmread(io.BytesIO(encode_dicom(make_phantom(DEMO_SEED), transfer_syntax="jpeg-ls")))
    codestream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([codestream[: len(codestream) // 2]])
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def _colour() -> bytes:
    grey = stored_values(make_phantom(DEMO_SEED, 512, 430), 8, "MONOCHROME2")
    dataset = describe(DEMO_SEED, "colour", uid.SecondaryCaptureImageStorage)
    dataset.Modality, dataset.ConversionType = "OT", "SYN"
    dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PhotometricInterpretation = 3, 0, "RGB"
    dataset.Rows, dataset.Columns = grey.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    return write(dataset, np.stack([grey, grey // 2, 255 - grey], axis=-1).astype(np.uint8), "explicit")
