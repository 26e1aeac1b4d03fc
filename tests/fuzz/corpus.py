"""Small, whole files of every kind that Carina takes: what the fuzzer starts from."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence

from shared.phantoms.dicom import describe, write
from shared.phantoms.encoding import UIDS
from tests.synthetic_dicom import make_dicom, make_image

IMAGE = make_image(72, 64)
GREY = (IMAGE >> 4).astype(np.uint8)  # [72, 64]
#: JPEG of the retired processes, which nothing at hand writes.
_SAMPLES = Path(__file__).parents[1] / "jpeg_samples"
_SAMPLE_UIDS = {
    "extended": uid.JPEGExtended12Bit,
    "spectral": "1.2.840.10008.1.2.4.53",
    "progressive": "1.2.840.10008.1.2.4.55",
    "arithmetic-extended": "1.2.840.10008.1.2.4.52",
    "arithmetic-spectral": "1.2.840.10008.1.2.4.54",
    "arithmetic-progressive": "1.2.840.10008.1.2.4.56",
}
#: Files above this are left out: a case should take milliseconds.
MAX_BYTES = 600_000


@dataclass(frozen=True)
class Original:
    """A file that is fit, or unfit in an ordinary way."""

    name: str
    data: bytes
    #: Not made up here: larger, so that fewer cases are made from it.
    is_real: bool = False


def read_corpus(real: Path | None = None) -> list[Original]:
    """Make the synthetic files, always the same; add the real ones of a folder, by name, each with its pixels cut."""
    corpus = [Original(name, data) for name, data in (*_syntaxes(), *_dialects(), *_pictures())]
    for path in sorted(real.rglob("*.dcm")) if real is not None else []:
        data = path.read_bytes()
        if len(data) <= MAX_BYTES:
            corpus.append(Original(path.stem, data, is_real=True))
    return corpus


def _syntaxes() -> Iterator[tuple[str, bytes]]:
    """One file in every way of packing pixels."""
    for syntax in UIDS:
        for bits in (8, 12):
            if bits == 8 or syntax not in ("jpeg-baseline", "jpeg-xl-recompression"):
                yield f"{syntax}-{bits}", write(_describe(bits), GREY if bits == 8 else IMAGE, syntax)
    for path in sorted(_SAMPLES.glob("*.jpg")):
        process, _, bits = path.stem.rpartition("-")
        yield (
            f"sample-{path.stem}",
            make_dicom(
                np.zeros((137, 101), np.uint8 if bits == "8" else np.uint16),
                bits=int(bits),
                syntax=_SAMPLE_UIDS[process],
                frame=path.read_bytes(),
            ),
        )


def _dialects() -> Iterator[tuple[str, bytes]]:
    """Headers of every shape: tables, windows, padding, sequences, fragments, no file meta."""
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 12])
    table.add_new("LUTData", "OW", np.arange(4096, dtype="<u2")[::-1].tobytes())
    yield "tables", make_dicom(IMAGE, bits=12, ModalityLUTSequence=Sequence([table]), VOILUTSequence=Sequence([table]))
    yield "windows", make_dicom(
        IMAGE, bits=12, WindowCenter=[2000, 100], WindowWidth=[4000, 50], VOILUTFunction="SIGMOID", RescaleSlope=2.5,
        RescaleIntercept=-1000, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0, PixelPaddingRangeLimit=9,
    )  # fmt: skip
    yield "signed", make_dicom(IMAGE.astype(np.int16) - 2048, bits=12, PixelPaddingValue=-2048)
    nested = Dataset()
    nested.CodeValue = "T-D3000"
    for _ in range(5):
        outer = Dataset()
        outer.AnatomicRegionSequence = Sequence([nested, nested])
        nested = outer
    for undefined in (False, True):
        header = dcmread(BytesIO(make_dicom(IMAGE, AnatomicRegionSequence=Sequence([nested]))))
        _leave_lengths_undefined(header, undefined=undefined)
        buffer = BytesIO()
        header.save_as(buffer)
        yield f"nested-{'undefined' if undefined else 'defined'}", buffer.getvalue()
    for name in ("jpeg-ls", "jpeg-2000"):
        compressed = dcmread(BytesIO(write(_describe(12), IMAGE, name)))
        (frame,) = generate_frames(compressed.PixelData, number_of_frames=1)
        compressed.PixelData = encapsulate([frame], fragments_per_frame=4, has_bot=True)
        buffer = BytesIO()
        compressed.save_as(buffer)
        yield f"{name}-fragments", buffer.getvalue()
    data = make_dicom(IMAGE, bits=12)
    (meta_bytes,) = struct.unpack_from("<I", data, 140)
    yield "no-meta", data[144 + meta_bytes :]


def _pictures() -> Iterator[tuple[str, bytes]]:
    """PNG and JPEG in every colour and depth."""
    pictures = {
        "png-8": ("PNG", Image.fromarray(GREY), {}),
        "png-16": ("PNG", Image.fromarray(IMAGE), {}),
        "png-1": ("PNG", Image.fromarray(GREY).convert("1"), {}),
        "png-rgba": ("PNG", Image.fromarray(GREY).convert("RGBA"), {}),
        "png-palette": ("PNG", Image.fromarray(GREY).convert("P"), {"transparency": 3}),
        "png-animated": ("PNG", Image.fromarray(GREY), {"save_all": True, "append_images": [Image.new("L", (64, 72))]}),
        "jpeg-8": ("JPEG", Image.fromarray(GREY), {}),
        "jpeg-rgb": ("JPEG", Image.fromarray(GREY).convert("RGB"), {"icc_profile": bytes(300), "comment": b"data"}),
        "jpeg-cmyk": ("JPEG", Image.fromarray(GREY).convert("CMYK"), {}),
        "jpeg-progressive": ("JPEG", Image.fromarray(GREY), {"progressive": True}),
    }
    for name, (kind, image, options) in pictures.items():
        buffer = BytesIO()
        image.save(buffer, kind, **options)
        yield name, buffer.getvalue()
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    Image.fromarray(GREY).save(buffer, "JPEG", exif=exif)
    yield "jpeg-exif", buffer.getvalue()
    yield "png-text", _with_text(pictures["png-8"][1])


def _with_text(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    data = buffer.getvalue()
    body = b"Comment\0\0" + zlib.compress(bytes(5000))
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return data[:33] + chunk + data[33:]


def _describe(bits: int) -> Dataset:
    dataset = describe(1, str(bits), uid.DigitalXRayImageStorageForPresentation)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = IMAGE.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (8, 8, 7) if bits == 8 else (16, bits, bits - 1)
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits - 1), 2**bits
    return dataset


def _leave_lengths_undefined(dataset: Dataset, *, undefined: bool) -> None:
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
                _leave_lengths_undefined(item, undefined=undefined)
