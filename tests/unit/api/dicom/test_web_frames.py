"""A frame as DICOMweb answers it: the bytes that the decoder reads, under the transfer syntax that they are in."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from pydicom import uid

from api.dicom.web.frames import Frame, frame_of
from shared.errors import MultiFrameImage, PermanentError, UndecodablePixelData
from shared.imaging.dicom_file import read_dicom
from shared.imaging.header import PREFIX_BYTES
from shared.phantoms.encoding import NATIVE, UIDS, TransferSyntax, encode_frame
from tests.decoding import code_of, pixels_of
from tests.golden_images import golden_image
from tests.requirements import SHARED_CASES
from tests.synthetic_dicom import make_dicom

IMAGE, IMAGE_8 = golden_image(12), golden_image(8)
LE = uid.ExplicitVRLittleEndian
END = b"\xfe\xff\xdd\xe0\0\0\0\0"
COMPRESSED: list[TransferSyntax] = [syntax for syntax in UIDS if syntax not in NATIVE]


def item(value: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value)) + value


def frame_in(data: bytes, *, is_decoded: bool = False) -> Frame:
    return frame_of(read_dicom(data, max_bytes=PREFIX_BYTES), is_decoded=is_decoded)


def with_value(data: bytes, value: bytes, *, length: int | None = None, vr: bytes = b"OB") -> bytes:
    """The same explicit little-endian file with another value of its pixel data."""
    start = data.index(b"\xe0\x7f\x10\x00O")
    size = len(value) if length is None else length
    return data[:start] + b"\xe0\x7f\x10\x00" + vr + b"\0\0" + struct.pack("<I", size) + value


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize(
    "image", [IMAGE, IMAGE_8, IMAGE_8[:65, :65]], ids=["16 bits", "8 bits", "an odd number of bytes"]
)
def test_native_frames_are_little_endian_and_exactly_one_frame(syntax: TransferSyntax, image: np.ndarray) -> None:
    if image.size % 2 and syntax in ("big-endian", "deflated", "implicit"):
        image = np.vstack([image, image[:1]])[:64]
    frame = frame_in(make_dicom(image, bits=8 if image.itemsize == 1 else 12, syntax=UIDS[syntax]))
    assert (bytes(frame.value), frame.transfer_syntax) == (image.astype(f"<u{image.itemsize}").tobytes(), LE)


def test_an_odd_number_of_8_bit_cells_in_big_endian_words_is_whole() -> None:
    image = IMAGE_8[:65, :65]
    words = np.frombuffer(image.tobytes() + b"\0", "u2").byteswap().tobytes()
    data = make_dicom(image, syntax=uid.ExplicitVRBigEndian)
    start = data.index(b"\x7f\xe0\x00\x10OB")
    data = data[:start] + b"\x7f\xe0\x00\x10OW\0\0" + struct.pack(">I", len(words)) + words
    assert bytes(frame_in(data).value) == image.tobytes()
    assert np.array_equal(pixels_of(data), image)


@pytest.mark.parametrize("padding", [b"\0", b"\0" * 5000, b"\xff" * 5000, b"\1\2\3"], ids=len)
def test_padding_behind_a_native_frame_is_left_out(padding: bytes) -> None:
    data = with_value(make_dicom(IMAGE, bits=12), IMAGE.tobytes() + padding, vr=b"OW")
    assert bytes(frame_in(data).value) == IMAGE.tobytes()
    assert np.array_equal(pixels_of(data), IMAGE)


@pytest.mark.parametrize("value", [IMAGE.tobytes()[:-2], IMAGE.tobytes() + IMAGE.tobytes(), b""], ids=len)
def test_a_native_frame_of_another_length_is_refused(value: bytes) -> None:
    data = with_value(make_dicom(IMAGE, bits=12), value, vr=b"OW")
    assert code_of(data) == "undecodable_pixel_data"
    with pytest.raises(UndecodablePixelData):
        frame_in(data)


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_a_compressed_frame_is_as_it_was_sent(syntax: TransferSyntax) -> None:
    image, bits = (IMAGE_8, 8) if syntax in ("jpeg-baseline", "jpeg-xl-recompression") else (IMAGE, 12)
    codestream = bytes(encode_frame(image, bits, syntax))
    pieces = b"".join(map(item, [b"", codestream[:300], b"", codestream[300:]])) + END
    whole = make_dicom(image, bits=bits, syntax=UIDS[syntax], frame=codestream)
    for data in (with_value(whole, pieces, length=0xFFFFFFFF), with_value(whole, pieces)):
        frame = frame_in(data)
        native = syntax == "encapsulated"
        assert bytes(frame.value) == codestream
        assert frame.transfer_syntax == (LE if native else UIDS[syntax])


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_a_compressed_frame_of_another_size_or_cut_off_is_refused(syntax: TransferSyntax) -> None:
    image, bits = (IMAGE_8, 8) if syntax in ("jpeg-baseline", "jpeg-xl-recompression") else (IMAGE, 12)
    codestream = bytes(encode_frame(image, bits, syntax))
    wrong = [make_dicom(image, bits=bits, syntax=UIDS[syntax], frame=codestream, Rows=len(image) + 1)]
    if not syntax.startswith("jpeg-xl"):  # of which only a decoder knows where it ends
        wrong.append(make_dicom(image, bits=bits, syntax=UIDS[syntax], frame=codestream[: len(codestream) // 2]))
    for data in wrong:
        assert code_of(data) == "undecodable_pixel_data"
        with pytest.raises(UndecodablePixelData):
            frame_in(data)


@pytest.mark.parametrize(
    ("declared", "there"),
    [
        ("jpeg-baseline", "jpeg-lossless"),
        ("jpeg-baseline", "jpeg-lossless-sv4"),
        ("jpeg-lossless", "jpeg-lossless-sv4"),
        ("jpeg-lossless", "jpeg-extended"),
        ("jpeg-extended", "jpeg-ls"),
        ("jpeg-ls", "jpeg-ls-near"),
        ("jpeg-2000", "jpeg-2000-lossy"),
        ("jpeg-2000", "htj2k"),
        ("htj2k", "htj2k-lossy"),
    ],
)
def test_the_syntax_that_is_named_is_the_one_that_is_there(declared: TransferSyntax, there: TransferSyntax) -> None:
    codestream = encode_frame(IMAGE, 12, there)
    frame = frame_in(make_dicom(IMAGE, bits=12, syntax=UIDS[declared], frame=codestream))
    assert frame.transfer_syntax == UIDS[there]
    assert frame.media_types == frame_in(make_dicom(IMAGE, bits=12, syntax=UIDS[there], frame=codestream)).media_types


@pytest.mark.parametrize(
    ("declared", "there"),
    [("jpeg-lossless-sv4", "jpeg-lossless"), ("jpeg-ls-near", "jpeg-ls"), ("jpeg-2000-lossy", "jpeg-2000")],
)
def test_a_syntax_that_allows_more_than_is_used_is_kept(declared: TransferSyntax, there: TransferSyntax) -> None:
    data = make_dicom(IMAGE, bits=12, syntax=UIDS[declared], frame=encode_frame(IMAGE, 12, there))
    assert frame_in(data).transfer_syntax == UIDS[declared]


@pytest.mark.parametrize("declared", [s for s in COMPRESSED if s not in ("encapsulated", "rle", "deflated-frame")])
def test_pixels_of_another_kind_than_their_syntax_are_refused(declared: TransferSyntax) -> None:
    with pytest.raises(PermanentError):
        frame_in(make_dicom(IMAGE, bits=12, syntax=UIDS[declared], frame=encode_frame(IMAGE, 12, "rle")))
    native = with_value(make_dicom(IMAGE, bits=12, syntax=UIDS[declared], frame=b"\0"), IMAGE.tobytes())
    with pytest.raises(UndecodablePixelData):
        frame_in(native)


def test_a_jpeg_under_a_native_syntax_is_refused() -> None:
    codestream = bytes(imagecodecs.jpeg_encode(IMAGE_8, level=90))
    codestream += b"\0" * (len(codestream) % 2)
    native = make_dicom(IMAGE_8)
    for data in (
        with_value(native, item(b"") + item(codestream) + END, length=0xFFFFFFFF),
        with_value(native, item(b"") + item(codestream) + END),
        with_value(native, codestream),
    ):
        with pytest.raises(UndecodablePixelData):
            frame_in(data)


def test_several_frames_are_not_answered_as_one() -> None:
    codestream = bytes(encode_frame(IMAGE, 12, "jpeg-ls"))
    whole = make_dicom(IMAGE, bits=12, syntax=UIDS["jpeg-ls"], frame=codestream)
    value = item(b"") + item(codestream) + item(codestream) + END
    with pytest.raises(MultiFrameImage):
        frame_in(with_value(whole, value, length=0xFFFFFFFF))


def test_a_frame_without_its_end_is_answered_once_it_has_been_decoded() -> None:
    codestream = bytes(imagecodecs.jpeg_encode(IMAGE_8, level=90))
    data = make_dicom(IMAGE_8, syntax=uid.JPEGBaseline8Bit, frame=codestream[:-2])
    with pytest.raises(UndecodablePixelData):
        frame_in(data)
    assert bytes(frame_in(data, is_decoded=True).value).endswith(b"\xff\xd9")


@pytest.mark.parametrize("excess", [IMAGE.nbytes, 0], ids=["two frames", "one"])
def test_a_deflated_frame_is_answered_if_its_cells_are_one_frame(excess: int) -> None:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    frame = deflater.compress(IMAGE.tobytes() + bytes(range(256)) * (excess // 256)) + deflater.flush()
    data = make_dicom(IMAGE, bits=12, syntax=UIDS["deflated-frame"], frame=frame)
    if not excess:
        assert bytes(frame_in(data).value).startswith(frame)
        return
    assert code_of(data) == "undecodable_pixel_data"
    with pytest.raises(UndecodablePixelData):
        frame_in(data)


def test_an_rle_frame_whose_runs_do_not_fill_it_is_refused() -> None:
    frame = bytes(encode_frame(IMAGE_8, 8, "rle"))
    short = frame[:64] + b"\x81\x07" * 3
    data = make_dicom(IMAGE_8, syntax=uid.RLELossless, frame=short)
    with pytest.raises(UndecodablePixelData):
        frame_in(data)
    assert code_of(data) == "undecodable_pixel_data"


@pytest.mark.needs("shared/cases")
def test_the_cases_are_answered_as_the_detector_reads_them() -> None:
    for name in ("frame_defined_length", "frame_no_offset_table_item"):
        frame = frame_in((SHARED_CASES / f"dicom/{name}.dcm").read_bytes())
        assert frame.transfer_syntax == uid.JPEGBaseline8Bit
        assert imagecodecs.jpeg_decode(bytes(frame.value)).shape == (256, 320)
    with pytest.raises(UndecodablePixelData):
        frame_in((SHARED_CASES / "dicom/frame_jpeg_tagged_native.dcm").read_bytes())
