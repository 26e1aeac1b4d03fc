"""A small dataset of phantoms, stored as an import would store it, for whatever needs one to train or evaluate on."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import cv2
import numpy as np

from shared.database import Database
from shared.ids import new_id
from shared.object_store import ObjectStore, dataset_key, rendition_key
from shared.phantoms import CLASS_NAMES, Lesion, make_phantom
from shared.tables import Dataset
from shared.version import RENDITION_VERSION
from shared.vocabulary.states import TaskState
from tests.integration.rows import home

HEIGHT_PX, WIDTH_PX = 256, 216
#: Into which split each image of four goes.
SPLITS = ("train", "train", "train", "val")


def store_dataset(
    database: Database,
    store: ObjectStore,
    *,
    name: str = "phantoms",
    count: int = 24,
    first: int = 0,
    state: TaskState = TaskState.SUCCEEDED,
) -> Dataset:
    """Store a dataset of `count` phantoms, three of four of them in `train` and one in `val`; return its detached row.

    The renditions are the originals. Phantom `first + n` is image n, of the same pixels each time.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        png, lesions = _draw(first + number)
        sha256 = hashlib.sha256(png).hexdigest()
        store.put(rendition_key(sha256), png)
        images.append(_image(number, sha256))
        for lesion in lesions:
            x_min, y_min, x_max, y_max = map(float, lesion.box_xyxy_px)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": lesion.class_id,
                    "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                    "area": (x_max - x_min) * (y_max - y_min),
                    "iscrowd": 0,
                    "readers": [],
                }
            )
    document = {
        "info": {"name": name, "rendition_version": RENDITION_VERSION},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": id_, "name": class_name} for id_, class_name in enumerate(CLASS_NAMES)],
    }
    return _store_row(database, store, document, name, state)


@cache
def _draw(number: int) -> tuple[bytes, tuple[Lesion, ...]]:
    phantom = make_phantom(number, HEIGHT_PX, WIDTH_PX, None)
    png = cv2.imencode(".png", np.rint(phantom.pixels * 255).astype(np.uint8))[1].tobytes()
    return png, tuple(phantom.lesions)


def _image(number: int, sha256: str) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": f"{number}.png",
        "height": HEIGHT_PX,
        "width": WIDTH_PX,
        "sha256": sha256,
        "rendition_sha256": sha256,
        "rendition_height": HEIGHT_PX,
        "rendition_width": WIDTH_PX,
        "patient": None,
        "split": SPLITS[number % len(SPLITS)],
    }


def _store_row(
    database: Database, store: ObjectStore, document: Mapping[str, Any], name: str, state: TaskState
) -> Dataset:
    content = json.dumps(document).encode()
    digest = hashlib.sha256(content).hexdigest()
    store.put(dataset_key(digest), content)
    row = Dataset(
        id=new_id(),
        name=name,
        source={"format": "phantoms"},
        state=state,
        digest=digest if state == TaskState.SUCCEEDED else None,
        rendition_version=RENDITION_VERSION,
        image_count=len(document["images"]),
        box_count=len(document["annotations"]),
        failure_count=0,
    )
    with database.begin() as session:
        row.project_id = home(session)
        session.add(row)
        session.flush()
        session.refresh(row)
        session.expunge(row)
    return row
