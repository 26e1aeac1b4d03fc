"""The classes, and the figures of a real label table that the phantoms' lesions follow."""

from dataclasses import dataclass
from importlib.resources import files

from pydantic import TypeAdapter

#: (x, y).
Pair = tuple[float, float]


@dataclass(frozen=True)
class ClassFigures:
    """How often, where and how large one class is; written by `deploy/tools/fit_phantom_figures.py`."""

    class_id: int
    class_name: str
    #: The share of films with any lesion that carry this class.
    frequency: float
    #: Centre of the box, as shares of the film's width and height.
    centre_mean: Pair
    centre_std: Pair
    #: Natural logarithm of the box's width and height, as shares of the film's.
    log_size_mean: Pair
    log_size_std: Pair


#: One entry per class, whose id is its index.
FIGURES = TypeAdapter(tuple[ClassFigures, ...]).validate_json(
    files("shared.phantoms").joinpath("figures.json").read_bytes()
)
#: VinBigData's names, by id.
CLASS_NAMES = tuple(figures.class_name for figures in FIGURES)
