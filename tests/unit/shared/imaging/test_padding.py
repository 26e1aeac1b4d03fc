"""Padding (PS3.3 C.7.5.1.1.2): black when shown, no part of a percentile, and no part of an average."""

from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGLSLossless

from shared.imaging.shrinking import shrink
from tests.rendering import chain_of, show
from tests.synthetic_dicom import make_dicom, make_image

IMAGE = make_image()


def framed(image: NDArray[np.integer], value: int) -> NDArray[np.integer]:
    """An image whose first 30 columns are `value`."""
    image = image.copy()
    image[:, :30] = value
    return image


@pytest.mark.parametrize(("value", "limit"), [(3990, 4095), (4095, 3990), (4000, None)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count_for_the_percentiles(
    value: int, limit: int | None, photometric: str
) -> None:
    image = framed(np.minimum(IMAGE, 3900), 4000)
    tags: dict[str, Any] = {"PixelPaddingValue": value, "PhotometricInterpretation": photometric}
    if limit is not None:
        tags["PixelPaddingRangeLimit"] = limit
    data = make_dicom(image, bits=12, **tags)
    low, high = np.percentile(image[:, 30:], (0.5, 99.5))
    brightness = np.clip((image[:, 30:] - low) / (high - low), 0, 1)
    expected = 255 * (1 - brightness if photometric == "MONOCHROME1" else brightness)
    assert not show(data)[:, :30].any()
    assert np.abs(show(data)[:, 30:] - expected).max() <= 0.5
    ends = sorted([value, value if limit is None else limit])
    assert chain_of(data)[-1] == f"padding: {ends[0]} to {ends[1]}"


def test_a_limit_of_0_is_a_limit() -> None:
    image = np.maximum(IMAGE.astype(np.int16), 1)
    image[:, :10], image[:, 10:20] = -2000, 0
    data = make_dicom(image, PixelPaddingValue=-2000, PixelPaddingRangeLimit=0)
    assert not show(data)[:, :20].any()
    assert chain_of(data)[-1] == "padding: -2000 to 0"


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_padding_value_is_read_as_the_pixels_are_whatever_its_vr(syntax: str | None) -> None:
    elements: dict[str, Any] = {"syntax": syntax} if syntax else {}
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    plain = show(make_dicom(IMAGE, **window))
    for image, value in ((framed(IMAGE.astype(np.int16), -2000), -2000), (framed(IMAGE, 63536), 63536)):
        data = make_dicom(image, PixelPaddingValue=value, **window, **elements)
        swapped = data.replace(b"\x20\x01US", b"\x20\x01??").replace(b"\x20\x01SS", b"\x20\x01US")
        swapped = swapped.replace(b"\x20\x01??", b"\x20\x01SS")
        if syntax is None:
            assert swapped != data
        for file in (data, swapped):
            assert not show(file)[:, :30].any()
            assert np.array_equal(show(file)[:, 30:], plain[:, 30:])


def test_padding_that_is_nowhere_or_everywhere_changes_nothing() -> None:
    plain = make_dicom(IMAGE, bits=12, WindowCenter=2048, WindowWidth=4096)
    for ends in ((50000, 60000), (0, 65535)):
        tags = {"PixelPaddingValue": ends[0], "PixelPaddingRangeLimit": ends[1]}
        data = make_dicom(IMAGE, bits=12, WindowCenter=2048, WindowWidth=4096, **tags)
        assert np.array_equal(show(data), show(plain))
        assert chain_of(data) == chain_of(plain)


def test_a_window_that_shows_only_padding_counts_as_absent() -> None:
    image = framed(IMAGE, 60000)
    data = make_dicom(image, PixelPaddingValue=60000, WindowCenter=30000, WindowWidth=100)
    assert "shows nothing" in chain_of(data)[0]
    assert show(data)[:, 30:].std() > 30


@pytest.mark.parametrize(("kind", "far"), [(np.uint16, 65535), (np.int16, -30000), (np.uint8, 255)])
def test_far_padding_leaves_no_seam_in_a_smaller_picture(kind: type[np.integer], far: int) -> None:
    image = np.full((300, 300), 100, kind)
    image[:, :151] = far  # the edge lies inside of a small pixel
    small, padded = shrink(image, 100, 100, (far, far))
    assert padded is not None
    assert padded[:, :50].all()
    assert not padded[:, 50:].any()
    assert (small[:, 50:] == 100).all()
    image[:, 151] = far  # two thirds of that pixel
    _, padded = shrink(image, 100, 100, (far, far))
    assert padded is not None
    assert padded[:, 50].all()


def test_single_padded_values_are_filled_from_around_them() -> None:
    image = np.full((100, 100), 1000, np.uint16)
    image[1::4, 1::4] = 65535
    small, padded = shrink(image, 50, 50, (65535, 65535))
    assert (small == 1000).all()
    assert padded is not None
    assert not padded.any()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 999),
    height_px=st.integers(8, 40),
    width_px=st.integers(8, 40),
    factors=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kind=st.sampled_from([np.uint8, np.uint16, np.int16]),
)
def test_a_shrunk_value_is_the_mean_of_what_is_no_padding(
    seed: int, height_px: int, width_px: int, factors: tuple[int, int], kind: type[np.integer]
) -> None:
    generator = np.random.default_rng(seed)
    shape = (height_px * factors[0], width_px * factors[1])
    limits = np.iinfo(kind)
    image = generator.integers(limits.min, limits.max, shape, kind)
    image[generator.random(shape) < 0.3] = limits.max
    small, padded = shrink(image, height_px, width_px, (limits.max, limits.max))
    areas = image.reshape(height_px, factors[0], width_px, factors[1]).astype(np.float64)
    inside = areas != limits.max
    share = inside.mean(axis=(1, 3))
    expected = np.where(inside, areas, 0).sum(axis=(1, 3)) / np.maximum(inside.sum(axis=(1, 3)), 1)
    assert padded is not None
    assert np.array_equal(padded[np.abs(share - 0.5) > 0.01], (share < 0.5)[np.abs(share - 0.5) > 0.01])
    assert np.abs(small - expected)[share > 0.51].max() <= 1


def test_padding_of_a_compressed_image_is_padding_too() -> None:
    image = framed(IMAGE, 4095)
    tags: dict[str, Any] = {"PixelPaddingValue": 4095, "WindowCenter": 2048, "WindowWidth": 4096}
    frame = imagecodecs.jpegls_encode(image)
    compressed = make_dicom(image, bits=12, syntax=JPEGLSLossless, frame=frame, **tags)
    assert np.array_equal(show(compressed), show(make_dicom(image, bits=12, **tags)))
    assert not show(compressed)[:, :30].any()
