"""The pictures that a classifier learns from, small: images and other files, each rendered as it is in serving."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from shared.errors import DecoderProcessLost, PermanentError
from shared.imaging.dicom_file import read_patient_id
from shared.imaging.isolation import DecoderPool
from shared.imaging.rendition import read_rendition

Floats = NDArray[np.float32]

#: Large enough for `vary` to cut from at twice the network's side.
SIDE_PX = 128
#: A rendition is kept at this size at most; averaged once more it comes to what serving's network sees.
_KEPT_PX = 256
_RENDITION_PX = 1024
_MAX_IMAGE_PIXELS = 64_000_000
_TIMEOUT_S = 60.0


class NothingToLearnFrom(Exception):
    """There are too few images to train or evaluate; the text gives the reason."""


@dataclass(frozen=True)
class Picture:
    """One file's rendition as a small square."""

    path: Path
    #: Images of one patient stay on one side of a split; None where it is not known.
    patient: str | None
    #: uint8 [H, W].
    rendition: NDArray[np.uint8]

    @property
    def image(self) -> Floats:
        """The rendition as a square, float32 [SIDE_PX, SIDE_PX] in 0–1."""
        return np.float32(1 / 255) * _shrink(self.rendition, SIDE_PX, SIDE_PX)


def read_pictures(
    sources: Mapping[str, Sequence[Path]], progress_on: Console | None = None
) -> dict[str, list[Picture]]:
    """Render, kind by kind, what each source names: a folder, or a COCO JSON with its images beside it.

    Files that cannot be rendered are left out. Raises `NothingToLearnFrom` where a kind has none left.
    """
    pictures: dict[str, list[Picture]] = {}
    with DecoderPool(1, _TIMEOUT_S) as decoders:
        for kind, places in sources.items():
            named = [found for place in places for found in _files(place)]
            read = [_read(path, patient, decoders) for path, patient in track(named, kind, console=progress_on)]
            pictures[kind] = [picture for picture in read if picture is not None]
            if not pictures[kind]:
                raise NothingToLearnFrom(f"{', '.join(map(str, places))}: no picture that can be rendered.")
    return pictures


def split(pictures: Sequence[Picture], share: float, seed: int) -> tuple[list[Picture], list[Picture]]:
    """Hold about a share of the pictures out, all of a patient or none; one of an unknown patient stands alone."""
    patients = [picture.patient or str(picture.path) for picture in pictures]
    order = np.random.default_rng(seed).permutation(sorted(set(patients)))
    held = set(order[: max(1, round(share * len(order)))].tolist())
    kept = [picture for picture, patient in zip(pictures, patients, strict=True) if patient not in held]
    if not kept:
        raise NothingToLearnFrom("All images are of one patient; none can be held out.")
    return kept, [picture for picture, patient in zip(pictures, patients, strict=True) if patient in held]


def _files(source: Path) -> Iterator[tuple[Path, str | None]]:
    if source.is_file():
        try:
            images = json.loads(source.read_bytes())["images"]
            named = [(image["file_name"], image.get("patient")) for image in images]
        except (ValueError, KeyError, TypeError) as exc:
            raise NothingToLearnFrom(f"{source} is no COCO JSON.") from exc
        for name, patient in named:
            inside = source.parent / "images" / name
            yield (inside if inside.exists() else source.parent / name), patient
    elif source.is_dir():
        yield from ((path, None) for path in sorted(source.rglob("*")) if path.is_file())
    else:
        raise NothingToLearnFrom(f"{source} does not exist.")


def _read(path: Path, patient: str | None, decoders: DecoderPool) -> Picture | None:
    try:
        data = path.read_bytes()
        made = decoders.render(data, rendition_px=_RENDITION_PX, max_image_pixels=_MAX_IMAGE_PIXELS)
        patient = patient or read_patient_id(data)
    except (OSError, PermanentError, DecoderProcessLost):
        return None
    return Picture(
        path, patient, _shrink(read_rendition(made.png), min(_KEPT_PX, made.height_px), min(_KEPT_PX, made.width_px))
    )


def _shrink(rendition: NDArray[np.uint8], height_px: int, width_px: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(rendition, (width_px, height_px), interpolation=cv2.INTER_AREA), np.uint8)
