"""Every transfer syntax: the lossless ones give one array bit for bit, the lossy ones stay within a bound."""

import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread, uid

from shared.deidentification import deidentify
from shared.imaging import codecs
from shared.imaging.decode import decode
from shared.imaging.transfer_syntaxes import JPEG_XL_LOSSLESS, PACKINGS
from shared.phantoms.encoding import LOSSLESS, LOSSY, NATIVE, NEAR, UIDS, encode_frame
from tests.decoding import code_of, pixels_of
from tests.golden_images import DEPTHS, SHA256, digest, golden_image, image_name
from tests.requirements import REPOSITORY, SHARED_DATA
from tests.synthetic_dicom import MAX_PIXELS, make_dicom
from tests.waiting import DEADLINE_S

SAMPLES = REPOSITORY / "tests/jpeg_samples"
LEG = SHARED_DATA / "dicom/other"
IMAGE = golden_image(12)
SIGNED = golden_image(12, signed=True)
#: Of lossy syntaxes by their bits: the largest and the mean error that is let pass. The image is noise to a good part,
#: and uses every value; a smooth one comes out closer.
BOUNDS = {
    ("jpeg-baseline", 8): (20, 2.5),
    ("jpeg-extended", 8): (20, 2.5),
    ("jpeg-extended", 12): (20, 4),
    ("jpeg-ls-near", 8): (NEAR, 2),
    ("jpeg-ls-near", 12): (NEAR, 2),
    ("jpeg-ls-near", 16): (NEAR, 2),
    ("jpeg-2000-lossy", 8): (4, 0.5),
    ("jpeg-2000-lossy", 12): (24, 4),
    ("jpeg-2000-lossy", 16): (400, 64),
    ("htj2k-lossy", 8): (2, 0.5),
    ("htj2k-lossy", 12): (160, 32),
    ("htj2k-lossy", 16): (160, 32),
    ("jpeg-xl-lossy", 8): (10, 1.5),
    ("jpeg-xl-lossy", 12): (160, 25),
    ("jpeg-xl-lossy", 16): (2500, 400),
    ("jpeg-xl-recompression", 8): (20, 2.5),
}


def in_syntax(image: NDArray[np.integer], bits: int, syntax: str, **elements: object) -> bytes:
    frame = None if syntax in NATIVE else encode_frame(image, bits, syntax)
    return make_dicom(image, bits=bits, syntax=UIDS[syntax], frame=frame, **elements)


# --- lossless --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS])
def test_every_lossless_syntax_gives_the_pixels_that_went_in(syntax: str, bits: int, signed: bool) -> None:
    image, expected = golden_image(bits, signed), SHA256[image_name(bits, signed)]
    assert digest(image) == expected
    pixels = pixels_of(in_syntax(image, bits, syntax))
    assert digest(pixels) == expected
    assert pixels.dtype in (np.uint8, np.uint16, np.int16)


@pytest.mark.parametrize("selection_value", range(1, 8))
@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
def test_every_selection_value_of_jpeg_lossless_does(bits: int, signed: bool, selection_value: int) -> None:
    image = golden_image(bits, signed)
    cells = image.view(f"u{image.itemsize}") & ((1 << bits) - 1)
    frame = imagecodecs.jpeg_encode(cells, lossless=True, predictor=selection_value, bitspersample=bits)
    data = make_dicom(image, bits=bits, syntax=uid.JPEGLossless, frame=frame)
    assert digest(pixels_of(data)) == SHA256[image_name(bits, signed)]


@pytest.mark.needs("shared/data")
@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS])
def test_every_lossless_syntax_gives_the_pixels_of_a_real_image(syntax: str) -> None:
    image = dcmread(LEG / "wg04_RG3_UNC.dcm")
    shape = image.Rows, image.Columns
    # A part of it is enough for encoders this slow; the whole image comes in files of its own, below.
    cells = np.frombuffer(image.PixelData, "<u2").reshape(shape)[500:900, 400:800]
    data = in_syntax(cells, image.BitsStored, syntax, HighBit=image.HighBit)
    assert digest(pixels_of(data)) == digest(image.pixel_array[500:900, 400:800])


@pytest.mark.needs("shared/data")
@pytest.mark.parametrize("syntax", ["UNC", "J2KR", "JLSL", "JPLL", "RLE"])
def test_the_lossless_files_of_a_real_image_give_its_pixels(syntax: str) -> None:
    assert digest(pixels_of((LEG / f"wg04_RG3_{syntax}.dcm").read_bytes())) == SHA256["leg"]


def test_every_syntax_that_is_taken_is_tested_here() -> None:
    sampled = {"1.2.840.10008.1.2.4.52", "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.54"}
    sampled |= {"1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.56", uid.JPEG2000MC}
    assert {*UIDS.values(), *sampled} == set(PACKINGS)
    assert {syntax for syntax, _ in BOUNDS} == set(LOSSY)


# --- lossy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("syntax", "bits"), BOUNDS)
def test_every_lossy_syntax_stays_within_its_bound(syntax: str, bits: int) -> None:
    image = golden_image(bits)
    error = np.abs(pixels_of(in_syntax(image, bits, syntax)).astype(int) - image)
    largest, mean = BOUNDS[syntax, bits]
    assert error.max() <= largest
    assert error.mean() <= mean


@pytest.mark.parametrize(
    ("sample", "syntax"),
    [
        ("extended-8", uid.JPEGExtended12Bit),
        ("extended-12", uid.JPEGExtended12Bit),
        ("spectral-8", "1.2.840.10008.1.2.4.53"),
        ("spectral-12", "1.2.840.10008.1.2.4.53"),
        ("progressive-8", "1.2.840.10008.1.2.4.55"),
        ("progressive-12", "1.2.840.10008.1.2.4.55"),
        ("arithmetic-extended-8", "1.2.840.10008.1.2.4.52"),
        ("arithmetic-spectral-8", "1.2.840.10008.1.2.4.54"),
        ("arithmetic-progressive-8", "1.2.840.10008.1.2.4.56"),
    ],
)
def test_what_other_encoders_made_of_the_image_is_it(sample: str, syntax: str) -> None:
    frame, bits = (SAMPLES / f"{sample}.jpg").read_bytes(), int(sample.rpartition("-")[2])
    image = golden_image(bits)
    error = np.abs(pixels_of(make_dicom(image, bits=bits, syntax=syntax, frame=frame)).astype(int) - image)
    assert error.max() <= 10
    assert error.mean() <= 1.6


# --- encoders of others ----------------------------------------------------------------------------------------------


@pytest.mark.needs("dcmcjpeg", "dcmcjpls", "dcmcrle")
@pytest.mark.parametrize("command", [f"dcmcjpeg +el +sv {value}" for value in range(1, 8)] + ["dcmcjpls", "dcmcrle"])
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, True), (16, False)])
def test_what_dcmtk_makes_of_a_image_without_loss_is_the_image(
    command: str, bits: int, signed: bool, tmp_path: Path
) -> None:
    image = golden_image(bits, signed)
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    plain.write_bytes(make_dicom(image, bits=bits))
    subprocess.run([*command.split(), str(plain), str(packed)], check=True, capture_output=True, timeout=DEADLINE_S)
    assert dcmread(packed).file_meta.TransferSyntaxUID.is_compressed
    assert digest(pixels_of(packed.read_bytes())) == SHA256[image_name(bits, signed)]


# --- what a codestream says of itself --------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k", "jpeg-xl"])
def test_a_frame_of_another_size_or_without_its_end_is_refused(syntax: str) -> None:
    frame = encode_frame(IMAGE, 12, syntax)
    image: dict[str, object] = {"bits": 12, "syntax": UIDS[syntax]}
    assert code_of(make_dicom(IMAGE, frame=frame, Rows=138, **image)) == "undecodable_pixel_data"
    for missing_bytes in (3, 20, 200, len(frame) // 2, len(frame) - 4):
        cut = make_dicom(IMAGE, frame=frame[:-missing_bytes], **image)
        assert code_of(cut) == "undecodable_pixel_data", missing_bytes


@pytest.mark.parametrize("syntax", ["jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k", "jpeg-xl"])
def test_a_frame_of_which_a_part_is_missing_is_refused_though_it_has_its_end(syntax: str) -> None:
    frame = encode_frame(IMAGE, 12, syntax)
    middle = len(frame) // 2
    for damaged in (frame[:middle] + frame[middle + 500 :], frame[:middle] + frame[-2:], frame[:-500] + frame[-2:]):
        data = make_dicom(IMAGE, bits=12, syntax=UIDS[syntax], frame=damaged)
        assert code_of(data) == "undecodable_pixel_data"


def test_an_error_that_a_decoder_drops_is_heeded() -> None:
    """Noise in the place of HTJ2K's code-blocks, of their length, is nothing but an unraisable exception's matter."""
    frame = bytearray(encode_frame(IMAGE, 12, "htj2k"))
    middle = len(frame) // 2
    frame[middle : middle + 300] = bytes(300)
    assert code_of(make_dicom(IMAGE, bits=12, syntax=uid.HTJ2KLossless, frame=frame)) == "undecodable_pixel_data"


@pytest.mark.parametrize("syntax", ["jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k", "jpeg-xl"])
def test_what_follows_a_frame_s_end_does_not_count(syntax: str) -> None:
    for padding in (b"\0", b"\0" * 4096, b"\xff", b"pad\0" * 8):
        data = make_dicom(IMAGE, bits=12, syntax=UIDS[syntax], frame=encode_frame(IMAGE, 12, syntax) + padding)
        assert np.array_equal(pixels_of(data), IMAGE), padding[:8]


def test_a_codestream_within_its_file_format_is_read_too() -> None:
    jp2 = imagecodecs.jpeg2k_encode(IMAGE, level=0, codecformat="jp2", bitspersample=12)
    assert np.array_equal(pixels_of(make_dicom(IMAGE, bits=12, syntax=uid.JPEG2000Lossless, frame=jp2)), IMAGE)
    cut = make_dicom(IMAGE, bits=12, syntax=uid.JPEG2000Lossless, frame=jp2[: len(jp2) // 2])
    assert code_of(cut) == "undecodable_pixel_data"
    boxed = imagecodecs.jpegxl_encode(IMAGE, lossless=True, bitspersample=12, usecontainer=True)
    assert np.array_equal(pixels_of(make_dicom(IMAGE, bits=12, syntax=JPEG_XL_LOSSLESS, frame=boxed)), IMAGE)


@pytest.mark.parametrize("shape", [(64, 64), (72, 96), (100, 150), (137, 101), (300, 400), (144, 256), (600, 70)])
@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
def test_the_size_and_depth_of_jpeg_xl_are_read_however_they_are_written(shape: tuple[int, int], bits: int) -> None:
    image = (np.arange(shape[0] * shape[1]).reshape(shape) % (1 << bits)).astype(np.uint8 if bits == 8 else np.uint16)
    data = make_dicom(image, bits=bits, syntax=JPEG_XL_LOSSLESS, frame=encode_frame(image, bits, "jpeg-xl"))
    assert np.array_equal(pixels_of(data), image)


@pytest.mark.parametrize(
    "frame",
    [
        imagecodecs.jpegxl_encode(np.zeros((*IMAGE.shape, 3), np.uint8), lossless=True),
        imagecodecs.jpegxl_encode(np.zeros((*IMAGE.shape, 2), np.uint8), lossless=True),
        imagecodecs.jpegxl_encode(np.zeros(IMAGE.shape, np.float32), lossless=True),
        b"\xff\x0a",
        b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\0jxlc",
        b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\1jxlp" + b"\xff" * 8,
    ],
    ids=["colour", "alpha", "floats", "nothing", "an empty box", "a box without end"],
)
def test_jpeg_xl_that_is_no_plain_grey_image_is_refused(frame: bytes) -> None:
    data = make_dicom(golden_image(8), syntax=JPEG_XL_LOSSLESS, frame=frame)
    assert code_of(data) == "undecodable_pixel_data"


def test_an_animation_in_jpeg_xl_is_several_frames() -> None:
    frames = imagecodecs.jpegxl_encode(np.stack([golden_image(8)] * 2), lossless=True, photometric="gray")
    assert code_of(make_dicom(golden_image(8), syntax=JPEG_XL_LOSSLESS, frame=frames)) == "multi_frame"


@pytest.mark.parametrize(
    ("frame", "syntax"),
    [
        (imagecodecs.jpeg_encode(np.zeros((137, 101, 3), np.uint8)), uid.JPEGBaseline8Bit),
        (imagecodecs.jpeg2k_encode(np.zeros((137, 101, 3), np.uint8), level=0, codecformat="j2k"), uid.JPEG2000MC),
        (encode_frame(IMAGE, 12, "jpeg-ls"), uid.JPEG2000Lossless),
        (encode_frame(IMAGE, 12, "rle"), uid.JPEGLSLossless),
        (encode_frame(IMAGE, 12, "jpeg-2000"), uid.RLELossless),
        (encode_frame(IMAGE, 12, "jpeg-2000"), UIDS["deflated-frame"]),
        (encode_frame(IMAGE, 12, "jpeg-2000"), UIDS["encapsulated"]),
        (b"\xff\xd8\xff\xff\xff\xff", uid.JPEGBaseline8Bit),
        (b"\xff\xd8\xff\xc4\x00\x00" * 3, uid.JPEGBaseline8Bit),
        (b"\xff\x4f\xff\x51", uid.JPEG2000),
    ],
)
def test_a_frame_of_another_kind_than_its_syntax_is_refused(frame: bytes, syntax: str) -> None:
    assert code_of(make_dicom(IMAGE, bits=12, syntax=syntax, frame=frame)) == "undecodable_pixel_data"


@pytest.mark.parametrize(
    "syntax",
    [
        uid.MPEG2MPML,
        uid.HEVCMP51,
        uid.UID("1.2.840.10008.1.2.4.94"),  # JPIP Referenced
        uid.UID("1.2.840.10008.1.2.4.58"),  # JPEG Lossless, arithmetic
        uid.UID("1.2.840.10008.1.2.4.65"),  # JPEG Lossless, hierarchical
        uid.UID("1.2.840.113619.5.2"),  # private
    ],
)
def test_a_syntax_without_a_decoder_is_refused_by_its_name(syntax: uid.UID) -> None:
    data, length = in_syntax(IMAGE, 12, "jpeg-xl"), len(JPEG_XL_LOSSLESS) + 1
    named = data.replace(JPEG_XL_LOSSLESS.encode().ljust(length, b"\0"), syntax.encode().ljust(length, b"\0"))
    assert code_of(named) == "unsupported_transfer_syntax"


# --- where header and codestream differ ------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["jpeg-2000", "htj2k"])
def test_the_header_decides_about_the_sign_of_a_codestream(syntax: str) -> None:
    """A codestream's bits are those of the cells; only the header knows what its writer meant by the highest one."""
    high = (IMAGE.astype(np.uint16) << 4) | (IMAGE >> 8)
    signed = encode_frame(high.view(np.int16), 16, syntax)
    assert np.array_equal(pixels_of(make_dicom(high, bits=16, syntax=UIDS[syntax], frame=signed)), high)
    unsigned = encode_frame(SIGNED.view(np.uint16), 16, syntax)
    assert np.array_equal(pixels_of(make_dicom(SIGNED, bits=12, syntax=UIDS[syntax], frame=unsigned)), SIGNED)


def test_a_12_bit_codestream_that_is_signed_by_mistake_keeps_its_bits() -> None:
    wrapped = np.where(IMAGE > 2047, IMAGE.astype(int) - 4096, IMAGE).astype(np.int16)
    frame = encode_frame(wrapped, 12, "jpeg-2000")
    assert np.array_equal(pixels_of(make_dicom(IMAGE, bits=12, syntax=uid.JPEG2000Lossless, frame=frame)), IMAGE)


@pytest.mark.parametrize("syntax", ["jpeg-lossless", "jpeg-2000", "jpeg-xl"])
@pytest.mark.parametrize(("bits", "said"), [(12, 16), (16, 12), (10, 12), (12, 10), (8, 12), (12, 8)])
def test_a_codestream_is_as_deep_as_it_says_itself(syntax: str, bits: int, said: int) -> None:
    image = golden_image(bits)
    frame = encode_frame(image, bits, syntax)
    data = make_dicom(image, bits=said, syntax=UIDS[syntax], frame=frame, BitsAllocated=16 if said > 8 else 8)
    assert np.array_equal(pixels_of(data), image)


@pytest.mark.parametrize("syntax", ["jpeg-lossless", "jpeg-ls"])
@pytest.mark.parametrize("precision", [12, 16])
def test_signed_values_are_read_from_cells_that_are_extended_and_from_such_as_are_not(
    syntax: str, precision: int
) -> None:
    cells = SIGNED.view(np.uint16) & ((1 << precision) - 1)
    frame = encode_frame(cells, precision, syntax)
    assert np.array_equal(pixels_of(make_dicom(SIGNED, bits=12, syntax=UIDS[syntax], frame=frame)), SIGNED)


def test_signed_values_that_are_wider_than_their_codestream_says_are_read() -> None:
    frame = imagecodecs.jpeg_encode(SIGNED.view(np.uint16), lossless=True, predictor=1, bitspersample=12)
    assert imagecodecs.jpeg_decode(bytes(frame)).max() == 65535
    assert np.array_equal(pixels_of(make_dicom(SIGNED, bits=12, syntax=uid.JPEGLosslessSV1, frame=frame)), SIGNED)


# --- decoders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["jpeg-lossless", "jpeg-2000", "htj2k"])
def test_what_imagecodecs_gives_up_on_pylibjpeg_decodes(syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(_data: bytes, _threads: int) -> NDArray[np.uint16]:
        raise imagecodecs.JpegError("unsupported")

    for packing in codecs.DECODERS:
        monkeypatch.setitem(codecs.DECODERS, packing, give_up)
    assert np.array_equal(pixels_of(in_syntax(IMAGE, 12, syntax)), IMAGE)


def test_a_grey_frame_of_many_scans_goes_to_neither_decoder() -> None:
    """One of them takes as long as the image took for each."""
    for frame in (encode_frame(golden_image(8), 8, "jpeg-baseline"), (SAMPLES / "progressive-8.jpg").read_bytes()):
        scan = frame[frame.rindex(b"\xff\xda") : -2]
        data = make_dicom(golden_image(8), syntax=uid.JPEGBaseline8Bit, frame=frame[:-2] + scan * 300 + b"\xff\xd9")
        assert code_of(data) == "undecodable_pixel_data"


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS])
def test_a_de_identified_file_shows_the_same(syntax: str) -> None:
    original = in_syntax(IMAGE, 12, syntax)
    assert np.array_equal(pixels_of(deidentify(original, b"k" * 32, max_bytes=2 * len(original))), IMAGE)


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS])
def test_threads_change_no_pixel(syntax: str) -> None:
    assert np.array_equal(decode(in_syntax(IMAGE, 12, syntax), MAX_PIXELS, threads=2).pixels, IMAGE)
