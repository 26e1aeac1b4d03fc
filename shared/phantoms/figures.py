"""The classes, and statistics of a real annotation table, which the lesions of phantoms follow."""

from dataclasses import dataclass
from importlib.resources import files

from pydantic import TypeAdapter

#: (x, y).
Pair = tuple[float, float]


@dataclass(frozen=True)
class ClassFigures:
    """The frequency, position and size of one class; written by `deploy/tools/fit_phantom_figures.py`."""

    class_id: int
    class_name: str
    #: The share of images with this class among all images with a lesion.
    frequency: float
    #: Centre of the box, as shares of the image's width and height.
    centre_mean: Pair
    centre_std: Pair
    #: Natural logarithm of the box's width and height, as shares of the image's width and height.
    log_size_mean: Pair
    log_size_std: Pair


#: One entry for each class; its index is the class's id.
FIGURES = TypeAdapter(tuple[ClassFigures, ...]).validate_json(
    files("shared.phantoms").joinpath("figures.json").read_bytes()
)
#: VinBigData's names, by id.
CLASS_NAMES = tuple(figures.class_name for figures in FIGURES)
