"""VinBigData's real table without its images, which may not be passed on: every image is taken to be large enough."""

import hashlib
import io

from shared.csv_cells import CsvWriter
from shared.training.dataset_source import VinBigDataSource
from trainer.datasets.annotations import Annotations
from trainer.datasets.class_names import NO_FINDING, NO_FINDING_ID
from trainer.datasets.consensus import agree, listen
from trainer.datasets.document import Content, match, write
from trainer.datasets.making import split
from trainer.datasets.renditions import Picture
from trainer.datasets.vinbigdata import read_table

SIDE_PX = 4096
COLUMNS = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")


def convert(table: bytes, source: VinBigDataSource) -> bytes:
    """Make a dataset's document of the table's bytes as an import does, with pictures that are not there."""
    heard = listen(read_table(table), source.consensus)
    content, failures = match(heard, {image.file_name: picture_of(image.file_name) for image in heard.images})
    assert not failures
    content = Content(agree(content.annotations, source.consensus), content.pictures)
    return write("vinbigdata", source, 1024, content, split(source, content))


def picture_of(file_name: str, side_px: int = SIDE_PX) -> Picture:
    """A square picture of this name."""
    sha256 = hashlib.sha256(file_name.encode()).hexdigest()
    return Picture(sha256, side_px, side_px, sha256, 1024, 1024)


def write_table(annotations: Annotations) -> str:
    """Write unfused annotations as the table that they can be read from."""
    names = {category.id: category.name for category in annotations.categories}
    text = io.StringIO()
    writer = CsvWriter(text, line_end="\n")
    writer.write(COLUMNS)
    for image in annotations.images:
        finders = set()
        for box in image.boxes:
            if len(box.readers) != 1:
                raise ValueError("A row of the table has one reader: only unfused boxes can be written.")
            finders.add(box.readers[0])
            writer.write((image.file_name, names[box.category_id], box.category_id, *box.readers, *box.xyxy_px))
        for reader in image.readers:
            if reader not in finders:
                writer.write((image.file_name, NO_FINDING, NO_FINDING_ID, reader, "", "", "", ""))
    return text.getvalue()
