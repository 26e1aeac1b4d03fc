"""Fit how often, where and how large each class of lesion is in a table of labelled boxes.

    python -m deploy.tools.fit_phantom_figures LABELS.csv[.gz] shared/phantoms/figures.json

The phantoms in `shared.phantoms` follow these few figures; no row of the table is kept.
"""

import argparse
import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

#: The label table of VinBigData holds no image sizes; this is its typical image, in pixels.
IMAGE_WIDTH_PX, IMAGE_HEIGHT_PX = 2500, 3000
NO_FINDING = 14


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV with image_id, class_id, class_name and x_min … y_max in pixels; `.gz` is unpacked."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def fit(rows: Iterable[Mapping[str, str]]) -> list[dict[str, object]]:
    """Fit one entry per class, by id.

    `frequency` is the share of the images with any box that carry the class. Centres and sizes are (x, y), as shares of
    the image's width and height; sizes are natural logarithms.
    """
    boxes, images, names = defaultdict(list), defaultdict(set), {}
    for row in rows:
        if (class_id := int(row["class_id"])) == NO_FINDING:
            continue
        boxes[class_id].append([float(row[key]) for key in ("x_min", "y_min", "x_max", "y_max")])
        images[class_id].add(row["image_id"])
        names[class_id] = row["class_name"]
    abnormal = len(set().union(*images.values()))
    image_px = np.array([IMAGE_WIDTH_PX, IMAGE_HEIGHT_PX])
    figures: list[dict[str, object]] = []
    for class_id in sorted(boxes):
        corners = np.array(boxes[class_id]).reshape(-1, 2, 2) / image_px  # [N, 2, 2] min and max, x and y
        centres, log_sizes = corners.mean(axis=1), np.log(corners[:, 1] - corners[:, 0])
        figures.append(
            {
                "class_id": class_id,
                "class_name": names[class_id],
                "frequency": round(len(images[class_id]) / abnormal, 4),
                "centre_mean": centres.mean(axis=0).round(4).tolist(),
                "centre_std": centres.std(axis=0).round(4).tolist(),
                "log_size_mean": log_sizes.mean(axis=0).round(4).tolist(),
                "log_size_std": log_sizes.std(axis=0).round(4).tolist(),
            }
        )
    return figures


def main() -> None:
    """Read the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="the table, CSV or gzipped CSV")
    parser.add_argument("figures", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    entries = ",\n".join("  " + json.dumps(entry) for entry in fit(read_rows(arguments.labels)))
    arguments.figures.write_text(f"[\n{entries}\n]\n")


if __name__ == "__main__":
    main()
