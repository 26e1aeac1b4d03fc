"""VinBigData's real table without its images, which may not be passed on: every image is taken to be large enough."""

import hashlib

from shared.training.dataset_source import VinBigDataSource
from trainer.datasets.consensus import agree, listen
from trainer.datasets.document import Content, match, write
from trainer.datasets.making import split
from trainer.datasets.renditions import Picture
from trainer.datasets.vinbigdata import read_table

SIDE_PX = 4096


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
