"""The classes, and the figures of a real label table that the phantoms' lesions follow."""

import json
from dataclasses import dataclass
from importlib.resources import files

#: What a pair (x, y) means is said by the field.
Pair = tuple[float, float]


@dataclass(frozen=True)
class ClassFigures:
    """How often, where and how large one class is; written by `deploy/fit_phantom_figures.py`."""

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


def _load() -> tuple[ClassFigures, ...]:
    entries = json.loads(files(__package__).joinpath("figures.json").read_text())
    return tuple(
        ClassFigures(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})
        for entry in entries
    )


#: One entry per class; a class's id is its index.
FIGURES = _load()
#: VinBigData's names, by id.
CLASS_NAMES = tuple(figures.class_name for figures in FIGURES)
