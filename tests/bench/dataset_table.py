"""VinBigData's table of 67,914 rows converted on one core: read, fused by WBF, dealt out, written as COCO JSON."""

import time
from collections.abc import Iterator

from shared.training.dataset_source import VinBigDataSource
from tests.bench.figure import Figure
from tests.requirements import SHARED_DATA
from tests.vinbigdata import convert

TARGET_S = 20.0


def measure() -> Iterator[Figure]:
    """Time the conversion once, from the file's bytes to the document's; images are taken to be large enough."""
    table = SHARED_DATA / "vinbigdata" / "train.csv.gz"
    if not table.exists():
        return
    data = table.read_bytes()
    for method in ("wbf", "nms", "none"):
        source = VinBigDataSource(annotations="", images="", consensus={"method": method})
        begun = time.process_time()
        document = convert(data, source)
        took_s = time.process_time() - begun
        yield Figure(f"67,914 rows to COCO, consensus {method}", took_s, "s", TARGET_S, "below")
        yield Figure(f"the document, consensus {method}", len(document) / 1e6, "MB")
