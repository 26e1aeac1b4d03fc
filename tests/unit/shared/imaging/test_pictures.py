"""PNG and JPEG files: every mode that can be an image, turned as it is meant to be seen."""

import struct
import zlib
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from shared.errors import PermanentError
from shared.imaging.decode import decode
from shared.imaging.header import PREFIX_BYTES, read_header
from shared.imaging.rendition import make_rendition, read_rendition
from tests.golden_images import golden_image
from tests.requirements import REPOSITORY
from tests.synthetic_dicom import MAX_PIXELS, make_dicom

GREY = golden_image(8)
DEEP = golden_image(16)
SAMPLES = REPOSITORY / "tests/jpeg_samples"


def save(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(data: bytes) -> NDArray[np.integer]:
    pixels = decode(data, MAX_PIXELS).pixels
    header = read_header(data[:PREFIX_BYTES], len(data))
    assert (header.height_px, header.width_px) == pixels.shape  # what intake says comes true
    return pixels


def show(data: bytes) -> NDArray[np.uint8]:
    return read_rendition(make_rendition(data, rendition_px=1024, max_image_pixels=MAX_PIXELS).png)


def code_of(data: bytes) -> str:
    with pytest.raises(PermanentError) as caught:
        decode(data, MAX_PIXELS)
    return caught.value.code


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    return png[:33] + chunk(kind, data) + png[33:]


# --- modes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_grey_pictures_of_every_mode_are_the_same(mode: str) -> None:
    assert np.array_equal(pixels_of(save(Image.fromarray(GREY).convert(mode))), GREY)
    assert np.array_equal(show(save(Image.fromarray(GREY).convert(mode))), GREY)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("palette", [False, True])
def test_few_bits_become_8(bits: int, palette: bool) -> None:
    levels = GREY >> 8 - bits
    rows = np.packbits(
        np.unpackbits(levels[..., None], axis=2)[:, :, 8 - bits :].reshape(len(levels), -1), axis=1
    )  # [H, bytes]
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">2I5B", levels.shape[1], levels.shape[0], bits, 3 if palette else 0, 0, 0, 0)
    greys = np.linspace(0, 255, 1 << bits).astype(np.uint8)
    table = chunk(b"PLTE", np.repeat(greys, 3).tobytes()) if palette else b""
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + table + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    assert np.array_equal(pixels_of(png), greys[levels])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_stay_16_however_many_channels_repeat_them(channels: int) -> None:
    png = imagecodecs.png_encode(DEEP if channels == 1 else np.repeat(DEEP[..., None], channels, axis=2))
    assert np.array_equal(pixels_of(bytes(png)), DEEP)
    assert np.array_equal(show(bytes(png)), show(make_dicom(DEEP)))


def test_transparency_hides_nothing() -> None:
    image = Image.fromarray(GREY)
    veiled = image.convert("LA")
    veiled.putalpha(Image.new("L", image.size, 0))
    assert np.array_equal(pixels_of(save(veiled)), GREY)
    assert np.array_equal(pixels_of(save(image, transparency=int(GREY[5, 5]))), GREY)
    assert np.array_equal(pixels_of(save(image.convert("P"), transparency=7)), GREY)


def test_gamma_and_profiles_change_nothing() -> None:
    plain = save(Image.fromarray(GREY))
    assert np.array_equal(pixels_of(with_chunk(plain, b"gAMA", struct.pack(">I", 100_000))), GREY)
    assert np.array_equal(pixels_of(with_chunk(plain, b"sRGB", b"\0")), GREY)


def test_a_marker_in_colour_is_tolerated_and_a_photograph_is_not() -> None:
    for image, full in ((GREY, 255), (DEEP, 65535)):
        colour = np.repeat(image[..., None], 3, axis=2)
        colour[:4, :8] = full, 0, 0
        grey = pixels_of(bytes(imagecodecs.png_encode(colour)))
        assert np.array_equal(grey[4:], image[4:])
        assert grey.dtype == image.dtype
        colour[:, :40, 2] //= 2
        assert code_of(bytes(imagecodecs.png_encode(colour))) == "colour_image"


def test_a_palette_of_colours_is_in_colour() -> None:
    image = Image.fromarray(GREY).convert("P")
    image.putpalette([value for level in range(256) for value in (level, 255 - level, 128)])
    assert code_of(save(image)) == "colour_image"


# --- JPEG ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        save(Image.fromarray(GREY), "JPEG", quality=95),
        save(Image.fromarray(GREY), "JPEG", quality=95, progressive=True),
        save(Image.fromarray(GREY).convert("RGB"), "JPEG", quality=95, subsampling=0),
        save(Image.fromarray(GREY).convert("RGB"), "JPEG", quality=95, progressive=True),
        (SAMPLES / "arithmetic-extended-8.jpg").read_bytes(),
        (SAMPLES / "arithmetic-progressive-8.jpg").read_bytes(),
    ],
    ids=["grey", "progressive", "colour", "progressive colour", "arithmetic", "progressive arithmetic"],
)
def test_jpeg_files_of_every_process_are_the_image_but_for_their_loss(data: bytes) -> None:
    error = np.abs(pixels_of(data).astype(int) - GREY)
    assert error.max() <= 12
    assert error.mean() <= 1.5


@pytest.mark.parametrize("process", ["extended", "progressive", "spectral"])
def test_12_bit_jpeg_files_keep_their_depth(process: str) -> None:
    image = golden_image(12)
    data = (SAMPLES / f"{process}-12.jpg").read_bytes()
    assert np.abs(pixels_of(data).astype(int) - image).max() <= 10
    assert np.abs(show(data).astype(int) - show(make_dicom(image, bits=12))).max() <= 2


def test_lossless_jpeg_files_are_the_image() -> None:
    assert np.array_equal(pixels_of(bytes(imagecodecs.jpeg_encode(DEEP, lossless=True, bitspersample=16))), DEEP)


def test_jpeg_in_inks_is_in_colour_before_it_is_decoded() -> None:
    inks = save(Image.fromarray(GREY).convert("CMYK"), "JPEG")
    assert code_of(inks) == "colour_image"
    with pytest.raises(PermanentError) as caught:
        read_header(inks[:2000], len(inks))
    assert caught.value.code == "colour_image"


def test_jpeg_ls_is_no_jpeg() -> None:
    assert code_of(bytes(imagecodecs.jpegls_encode(GREY))) == "undecodable_pixel_data"


#: How a scanner lays an image down that is to be seen upright, by the orientation that it then writes.
LAID = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.T,
    6: lambda image: image.T[::-1],
    7: lambda image: image.T[::-1, ::-1],
    8: lambda image: image.T[:, ::-1],
}


@pytest.mark.parametrize("orientation", LAID)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_is_turned_as_its_exif_says(orientation: int, mode: str) -> None:
    upright = np.full((96, 80), 120, np.uint8)
    upright[8:24, 8:16] = 250  # so that no two ways to lay it down are alike
    upright[8:16, 56:72] = 10
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    laid = Image.fromarray(np.ascontiguousarray(LAID[orientation](upright))).convert(mode)
    data = save(laid, "JPEG", exif=exif, quality=95)
    assert np.abs(pixels_of(data).astype(int) - upright).max() < 12


@pytest.mark.parametrize("tags", [b"", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\x01\0\x12\x01"])
def test_exif_that_cannot_be_read_turns_nothing(tags: bytes) -> None:
    plain, exif = save(Image.fromarray(GREY), "JPEG", quality=95), b"Exif\0\0" + tags
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert np.array_equal(pixels_of(data), pixels_of(plain))


@pytest.mark.parametrize("orientation", [0, 9, 200])
def test_an_orientation_that_is_none_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert pixels_of(save(Image.fromarray(GREY), "JPEG", exif=exif)).shape == GREY.shape


def test_a_png_s_exif_turns_nothing() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    assert np.array_equal(pixels_of(save(Image.fromarray(GREY), exif=exif)), GREY)


def test_what_cameras_append_does_not_count() -> None:
    first = save(Image.fromarray(GREY), "JPEG", quality=95)
    several = BytesIO()
    Image.fromarray(GREY).save(several, "MPO", save_all=True, append_images=[Image.new("L", (40, 40))], quality=95)
    for data in (first + b"trailer" * 100, several.getvalue()):
        assert np.array_equal(pixels_of(data), pixels_of(first))


# --- animations ------------------------------------------------------------------------------------------------------


def test_an_animated_png_is_refused_from_its_header() -> None:
    image = Image.fromarray(GREY)
    animated = save(image, save_all=True, append_images=[image.rotate(90)])
    assert code_of(animated) == "multi_frame"
    with pytest.raises(PermanentError) as caught:
        read_header(animated[:200], len(animated))
    assert caught.value.code == "multi_frame"
    still = with_chunk(save(image), b"acTL", struct.pack(">2I", 1, 0))
    assert np.array_equal(pixels_of(still), GREY)


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [save(Image.fromarray(GREY)), save(Image.fromarray(GREY), "JPEG")], ids=["PNG", "JPEG"]
)
def test_a_picture_that_was_cut_off_is_refused(data: bytes) -> None:
    for kept in (9, 20, 40, 200, len(data) // 2, len(data) - 40):
        assert code_of(data[:kept]) == "undecodable_pixel_data", kept
    assert code_of(save(Image.fromarray(GREY), "JPEG")[:-2]) == "undecodable_pixel_data"


def test_a_png_whose_pixels_are_damaged_is_refused() -> None:
    data = bytearray(save(Image.fromarray(GREY)))
    data[len(data) // 2] ^= 0xFF
    assert code_of(bytes(data)) == "undecodable_pixel_data"


@pytest.mark.parametrize("size", [(0, 80), (80, 0)])
def test_a_png_without_a_size_is_refused(size: tuple[int, int]) -> None:
    data = bytearray(save(Image.fromarray(GREY)))
    data[16:24] = struct.pack(">2I", *size)
    assert code_of(bytes(data)) == "undecodable_pixel_data"
