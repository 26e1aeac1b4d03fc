"""Makes a dataset from its source: reads annotations, renders images, applies the consensus and assigns splits.

It can be interrupted at any time: it only writes renditions, which the next attempt reuses.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shared.database import Database
from shared.errors import ObjectMissing, PermanentError
from shared.object_store import ObjectStore, dataset_key, result_key
from shared.processes.scratch import passing_folder
from shared.settings import Settings
from shared.training.config import Split
from shared.training.dataset_source import (
    CocoSource,
    Consensus,
    FileSource,
    PhantomsSource,
    ReviewsSource,
    Source,
    VinBigDataSource,
    VocSource,
    YoloSource,
)
from shared.version import RENDITION_VERSION
from trainer.datasets.annotations import Annotations, MalformedAnnotations
from trainer.datasets.coco import join, read_coco
from trainer.datasets.consensus import agree, listen
from trainer.datasets.document import Content, canonical, digest_of, match, write
from trainer.datasets.human import score_readers
from trainer.datasets.notes import Notes, describe
from trainer.datasets.phantoms import draw_images
from trainer.datasets.places import Folder, Place, Prefix
from trainer.datasets.plausible import check_fit, check_units, drop_vanishing
from trainer.datasets.reader_model import rate
from trainer.datasets.renditions import Failure, Picture, Renderer
from trainer.datasets.reviews import Originals, read_reviews
from trainer.datasets.splits import Member, check_kept, stratify
from trainer.datasets.summary import summarize
from trainer.datasets.vinbigdata import read_table
from trainer.datasets.voc import read_voc
from trainer.datasets.yolo import read_yolo

#: Called with the current activity, the number of finished entries, their total, and the number of failed ones.
OnProgress = Callable[[Literal["drawing", "rendering"], int, int, int], None]


class UnreadablePlace(PermanentError):
    """A file or folder of the import cannot be read."""

    code = "unreadable_place"


class NothingToImport(PermanentError):
    """No image is left to create a dataset from."""

    code = "nothing_to_import"


@dataclass(frozen=True)
class Material:
    """The input of a dataset: the annotations, and the place of the images."""

    annotations: Annotations
    images: Place


@dataclass(frozen=True)
class Made:
    """A finished dataset that is not stored yet."""

    document: bytes
    failures: tuple[Failure, ...]
    summary: dict[str, Any]

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the document."""
        return digest_of(self.document)


@contextmanager
def open_here(source: Source, database: Database, store: ObjectStore, on_progress: OnProgress) -> Iterator[Material]:
    """Open a source whose places are files and folders of this machine. Raises as `read_material`, and `OSError`."""
    if isinstance(source, PhantomsSource):
        with _draw(source, on_progress) as material:
            yield material
    elif isinstance(source, ReviewsSource):
        yield _read_reviews(source, database, store)
    else:
        yield read_material(source, lambda path: Path(path).read_bytes(), lambda path: Folder(Path(path)))


@contextmanager
def open_stored(source: Source, database: Database, store: ObjectStore, on_progress: OnProgress) -> Iterator[Material]:
    """Open a source whose places are keys of the bucket. Raises as `read_material`, and `UnreadablePlace`."""
    if isinstance(source, PhantomsSource):
        with _draw(source, on_progress) as material:
            yield material
    elif isinstance(source, ReviewsSource):
        yield _read_reviews(source, database, store)
    else:
        try:
            material = read_material(source, store.read, lambda prefix: Prefix(store, prefix))
        except ObjectMissing as exc:  # permanent: a retry would not find it
            raise UnreadablePlace(exc.detail) from exc
        yield material


def read_material(source: FileSource, read: Callable[[str], bytes], open_: Callable[[str], Place]) -> Material:
    """Read the annotations of a source, and open its images. Raises `MalformedAnnotations`."""
    images = open_(source.images)
    match source:
        case VinBigDataSource():
            annotations = read_table(read(source.annotations))
        case CocoSource():
            annotations = _read_documents(source, read)
        case YoloSource():
            annotations = read_yolo(open_(source.annotations), images)
        case VocSource():
            annotations = read_voc(open_(source.annotations), images)
    return Material(annotations, images)


def _read_documents(source: CocoSource, read: Callable[[str], bytes]) -> Annotations:
    documents: dict[Split, Annotations] = {"train": read_coco(read(source.annotations))}
    if source.val_annotations is not None:
        documents["val"] = read_coco(read(source.val_annotations))
    if source.test_annotations is not None:
        documents["test"] = read_coco(read(source.test_annotations))
    return join(documents) if len(documents) > 1 else documents["train"]


class Maker:
    """Makes datasets with the settings, the database and the object store of this process."""

    def __init__(self, settings: Settings, database: Database, store: ObjectStore, on_progress: OnProgress) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._on_progress = on_progress

    def make(self, name: str, source: Source, material: Material) -> Made:
        """Make a dataset. Raises `MalformedAnnotations`, `SplitImpossible`, `NothingToImport` and errors of servers."""
        check_units(material.annotations)
        annotations, source = without_readers(material.annotations, source)
        is_drawn_by_none = isinstance(source, PhantomsSource) and not source.has_readers
        consensus = Consensus(method="none") if is_drawn_by_none else source.consensus
        heard = listen(annotations, consensus)
        pictures, failures = self._render(source, heard, material.images)
        content, mismatched = match(check_fit(heard, pictures), pictures)
        failures += mismatched
        counted = Counter(failure.code for failure in failures)
        if not content.pictures:
            raise NothingToImport(_explain(failures, counted))
        unfused = drop_vanishing(content)
        rated, readers = rate(agree(unfused.annotations, consensus), consensus)
        content = Content(rated, unfused.pictures)
        splits = split(source, content)
        document = write(name, source, self._settings.rendition_px, content, splits)
        noted = describe(content.annotations) | {"failures": dict(counted)}
        if not isinstance(source, ReviewsSource):  # the readers of a review see each other's findings
            noted["reader_model"] = readers.describe() if readers else {}
            noted["human"] = score_readers(unfused.annotations, splits, consensus.iou)
        return Made(
            document, tuple(sorted(failures, key=lambda failure: failure.file_name)), summarize(document) | noted
        )

    def store(self, made: Made) -> dict[str, Any]:
        """Store the objects of a dataset. Returns the values of its row."""
        self._store.put(dataset_key(made.digest), made.document)
        failures = b"".join(canonical(asdict(failure)) + b"\n" for failure in made.failures)
        failures_sha256 = digest_of(failures)
        self._store.put(result_key(failures_sha256, "jsonl"), failures)
        splits = made.summary["splits"].values()
        return {
            "digest": made.digest,
            "rendition_version": RENDITION_VERSION,
            "image_count": sum(split["images"] for split in splits),
            "box_count": sum(split["boxes"] for split in splits),
            "failure_count": len(made.failures),
            "failures_sha256": failures_sha256,
            "summary": made.summary,
        }

    def _render(
        self, source: Source, annotations: Annotations, images: Place
    ) -> tuple[dict[str, Picture], list[Failure]]:
        names = sorted(image.file_name for image in annotations.images)
        pictures: dict[str, Picture] = {}
        failures: list[Failure] = []

        renderer = Renderer(self._settings, self._database, self._store, images)
        patients_from_dicom = not isinstance(source, PhantomsSource) and source.patients_from_dicom
        self._on_progress("rendering", 0, len(names), 0)
        for name, found in renderer.render(names, patients_from_dicom=patients_from_dicom):
            if isinstance(found, Failure):
                failures.append(found)
            else:
                pictures[name] = found
            self._on_progress("rendering", len(pictures) + len(failures), len(names), len(failures))
        return pictures, failures


def _read_reviews(source: ReviewsSource, database: Database, store: ObjectStore) -> Material:
    if source.project_id is None:
        raise UnreadablePlace("Name the project of the reviews.")
    annotations = read_reviews(database, source.project_id)
    return Material(annotations, Originals(store, [image.file_name for image in annotations.images]))


@contextmanager
def _draw(source: PhantomsSource, on_progress: OnProgress) -> Iterator[Material]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        on_progress("drawing", done, source.films, 0)

    with passing_folder("carina-phantoms-") as folder:
        yield Material(draw_images(source, Path(folder), count), Folder(Path(folder)))


def without_readers(annotations: Annotations, source: Source) -> tuple[Annotations, Source]:
    """For a table without readers, return a source that takes all boxes unchanged, and note it.

    Raises `MalformedAnnotations` if the import selects readers, or requires several of them.
    """
    anonymous = [box for image in annotations.images for box in image.boxes if not box.readers]
    named = any(image.readers for image in annotations.images)
    if not isinstance(source, VinBigDataSource) or named or not anonymous:
        return annotations, source
    if source.consensus.readers is not None or source.consensus.min_readers > 1:
        raise MalformedAnnotations("The table has no rad_id: import it without a choice of readers.")
    notes = Notes.of(annotations)
    notes.add("readers_unknown", count=len(anonymous))
    return notes.onto(annotations), source.model_copy(update={"consensus": Consensus(method="none")})


def _explain(failures: Sequence[Failure], counted: Mapping[str, int]) -> str:
    """Return why no image is usable: the number of images for each code, and the first reason."""
    why = ", ".join(f"{count} {code}" for code, count in sorted(counted.items(), key=lambda item: -item[1]))
    first = f" {failures[0].file_name}: {failures[0].reason}" if failures else ""
    return f"Not one image can be taken: {why or 'no image was read'}.{first}"


def split(source: Source, content: Content) -> list[Split]:
    """Assign each image to a split. Raises `SplitImpossible`."""
    images = content.annotations.images
    members = [
        Member(group, frozenset(box.category_id for box in image.boxes))
        for group, image in zip(content.groups(), images, strict=True)
    ]
    if source.keeps_splits:
        return check_kept(members, (image.split for image in images))
    return stratify(members, source.splits)
