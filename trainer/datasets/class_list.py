"""The list of classes beside YOLO's labels: `data.yaml`, `classes.txt` or `obj.names`."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from shared.detector.card import Category
from trainer.datasets.annotations import MalformedAnnotations, is_printable
from trainer.datasets.class_names import key_of
from trainer.datasets.places import Place
from trainer.datasets.text import read_text

#: A key that Carina adds to `data.yaml`: the ids of the classes, if they are not their positions.
CATEGORY_IDS = "category_ids"
_MAX_NAME_CHARACTERS = 200


def read_classes(place: Place) -> dict[int, Category] | None:
    """Return the classes by their positions; None without a list. Raises `MalformedAnnotations`."""
    names = sorted(place.names(), key=lambda name: (name.count("/"), PurePosixPath(name).name != "data.yaml", name))
    for name in names:
        if PurePosixPath(name).suffix.lower() in {".yaml", ".yml"}:
            content = _parse(name, read_text(place.read(name)))
            if "names" in content:
                return _classes(name, content["names"], content.get(CATEGORY_IDS))
    for name in names:
        if PurePosixPath(name).name == "classes.txt" or PurePosixPath(name).suffix == ".names":
            return _classes(name, read_text(place.read(name)).strip().splitlines(), None)
    return None


def _parse(name: str, text: str) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise MalformedAnnotations(f"{name} is not valid YAML. Correct it.") from exc
    return content if isinstance(content, dict) else {}


def _classes(file: str, names: Any, ids: Any) -> dict[int, Category]:
    by_place = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(by_place, dict) or not all(_is_id(place) for place in by_place):
        raise MalformedAnnotations(f"{file}: `names` must be a list of names, or names by number.")
    if ids is not None and not (isinstance(ids, list) and len(ids) == len(by_place) == len({*map(str, ids)})):
        raise MalformedAnnotations(f"{file}: `{CATEGORY_IDS}` must have a different number for each class.")
    classes = {}
    for order, (place, name) in enumerate(by_place.items()):
        text = str(name).strip() if isinstance(name, str | int | float) else ""
        if not text or len(text) > _MAX_NAME_CHARACTERS or not is_printable(text):
            raise MalformedAnnotations(f"{file}: class {place} has no name that can be used.")
        id_ = place if ids is None else ids[order]
        if not _is_id(id_):
            raise MalformedAnnotations(f"{file}: the id {id_!r:.20} of class {text!r} is not a whole number.")
        classes[place] = Category(id=id_, name=text)
    if len({key_of(category.name) for category in classes.values()}) < len(classes):
        raise MalformedAnnotations(f"{file}: two classes have the same name. Every name must be unique.")
    return classes


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
