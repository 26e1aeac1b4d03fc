"""The source of a dataset. The API checks it, the row stores it, the import applies it. Does not import torch."""

import math
import re
from typing import Annotated, ClassVar, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from shared.bounded import Bounded
from shared.errors import InvalidRequest

#: Carina's own folders of the bucket, which an import must not read: they contain data of all projects.
OWN_FOLDERS = frozenset(
    {"originals", "renditions", "incoming", "models", "datasets", "checkpoints", "results"},
)
_KEY = re.compile(r"[A-Za-z0-9!_.'()/ -]{1,1000}")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,99}$")]


class Consensus(Bounded):
    """The method that merges the boxes of several readers."""

    #: `wbf`: overlapping boxes are averaged (arXiv:1910.13302); `nms`: of overlapping boxes, the one that agrees most
    #: with the others is kept; `none`: all boxes are kept.
    method: Literal["wbf", "nms", "none"] = "wbf"
    #: Boxes of one class with a larger IoU than this are one finding.
    iou: float = Field(0.5, gt=0, lt=1)
    #: A finding drawn by fewer readers is omitted.
    min_readers: int = Field(1, ge=1, le=100)
    #: The readers whose boxes are used; None: all. Images that none of them has read are omitted.
    readers: tuple[str, ...] | None = Field(None, min_length=1, max_length=100)

    @model_validator(mode="after")
    def _unfused_boxes_have_one_reader(self) -> Self:
        if self.method == "none" and self.min_readers > 1:
            raise ValueError("without a consensus every box has one reader: min_readers must be 1")
        return self


class SplitPlan(Bounded):
    """The fraction of patients in each split."""

    train: float = Field(0.8, ge=0, le=1)
    val: float = Field(0.1, ge=0, le=1)
    test: float = Field(0.1, ge=0, le=1)
    seed: int = Field(0, ge=0, lt=2**31)
    #: Use the split of each image in the annotations instead.
    keep: bool = False

    @model_validator(mode="after")
    def _shares_make_a_whole(self) -> Self:
        if not math.isclose(self.train + self.val + self.test, 1, abs_tol=1e-6):
            raise ValueError("the shares of train, val and test must add up to 1")
        return self


class _Annotated(Bounded):
    #: The options that a dataset's document states.
    described: ClassVar[set[str]] = {"format", "consensus"}


class _Files(_Annotated):
    #: The path of a file, or the key of an object.
    annotations: Annotated[str, Field(max_length=4096)]
    #: The folder of the images, or the prefix of their keys.
    images: Annotated[str, Field(max_length=4096)]
    #: Whether images are grouped by DICOM's PatientID (as a pseudonym) if the annotations contain no patient.
    patients_from_dicom: bool = True
    splits: SplitPlan = SplitPlan()

    @property
    def keeps_splits(self) -> bool:
        """Whether the annotations determine the split of each image."""
        return self.splits.keep


class VinBigDataSource(_Files):
    """A table like VinBigData's `train.csv`: one row for each box of a reader, or for a reader who found nothing."""

    format: Literal["vinbigdata"] = "vinbigdata"
    consensus: Consensus = Consensus()


class CocoSource(_Files):
    """One COCO document, or one for each split."""

    format: Literal["coco"] = "coco"
    #: If one of these is set, each document is a split, and `annotations` is the training split.
    val_annotations: str | None = None
    test_annotations: str | None = None
    consensus: Consensus = Consensus(method="none")

    @property
    def keeps_splits(self) -> bool:
        """Whether the annotations determine the split of each image, or each document is a split."""
        return self.splits.keep or self.val_annotations is not None or self.test_annotations is not None


class YoloSource(_Files):
    """YOLO's label files: `annotations` is the folder, or the prefix, of the labels and of the list of classes."""

    format: Literal["yolo"] = "yolo"
    #: Labels state no reader.
    consensus: Consensus = Consensus(method="none")


class VocSource(_Files):
    """Pascal VOC's XML files: `annotations` is their folder or prefix, with `ImageSets` if there are splits."""

    format: Literal["voc"] = "voc"
    consensus: Consensus = Consensus(method="none")


class PhantomsSource(Bounded):
    """Synthetic images with known lesions."""

    format: Literal["phantoms"] = "phantoms"
    films: int = Field(400, ge=4, le=20_000)
    #: Different seeds give completely different images.
    seed: int = Field(0, ge=0, le=999)
    #: Whether classes are equally frequent; else as frequent as on real images.
    balanced: bool = True
    #: The fraction of images that are inverted, as by a machine that tags them wrongly.
    negative_share: float = Field(0.0, ge=0, le=1)
    #: Faint lesions that overlap, with the boxes of three simulated readers.
    hard: bool = False
    #: With `hard`: the true lesions instead of the readers' boxes. The images are the same.
    truth: bool = False
    #: For the boxes of the simulated readers.
    consensus: Consensus = Consensus()
    splits: SplitPlan = SplitPlan(train=0.8, val=0.2, test=0)

    @model_validator(mode="after")
    def _only_hard_phantoms_have_readers(self) -> Self:
        if self.truth and not self.hard:
            raise ValueError("easy phantoms always have their true lesions: truth needs hard")
        return self

    @property
    def has_readers(self) -> bool:
        """Whether the boxes are those of simulated readers."""
        return self.hard and not self.truth

    @property
    def keeps_splits(self) -> bool:
        """Whether the images have splits already: no."""
        return False

    @property
    def described(self) -> set[str]:
        """The options that a dataset's document states."""
        return {"format", "hard", "consensus"} if self.has_readers else {"format", *(["hard", "truth"] * self.hard)}


class ReviewsSource(_Annotated):
    """The images of a project whose review is complete, with the accepted findings."""

    format: Literal["reviews"] = "reviews"
    #: A request to the API may omit it: it is the project of the key.
    project_id: UUID | None = None
    #: Whether images are grouped by DICOM's PatientID (as a pseudonym). Images of one study are always grouped.
    patients_from_dicom: bool = True
    #: An image has one review, which all its readers share.
    consensus: Consensus = Consensus(method="none")
    splits: SplitPlan = SplitPlan(train=0.8, val=0.2, test=0)

    @property
    def keeps_splits(self) -> bool:
        """Whether the reviews have splits already: no."""
        return False


#: Sources of annotations in files.
FileSource = VinBigDataSource | CocoSource | YoloSource | VocSource
Source = FileSource | PhantomsSource | ReviewsSource


class DatasetRequest(Bounded):
    """A request to create a dataset from files in the object store, reviews or phantoms."""

    name: Name
    source: Annotated[Source, Field(discriminator="format")]

    def in_bucket(self, bucket: str) -> Self:
        """Return the request with keys and a prefix in `bucket`; raise `InvalidRequest` for any other place."""
        source = self.source
        if isinstance(source, PhantomsSource | ReviewsSource):
            return self
        places = {name: place for name, place in source if name.endswith("annotations") and place is not None}
        keys = {name: _key(place, bucket) for name, place in places.items()}
        folders = ("images", "annotations") if isinstance(source, YoloSource | VocSource) else ("images",)
        for name in folders:
            keys[name] = _key(getattr(source, name), bucket).rstrip("/") + "/"
        return self.model_copy(update={"source": source.model_copy(update=keys)})

    def places(self) -> list[str]:
        """Return the keys and the prefix that the import reads."""
        named = {name: place for name, place in self.source if name == "images" or name.endswith("annotations")}
        return [place for place in named.values() if place is not None]

    def in_project(self, project_id: UUID) -> Self:
        """Return the request with `project_id` for reviews; raise `InvalidRequest` if it has another project."""
        source = self.source
        if not isinstance(source, ReviewsSource):
            return self
        if source.project_id not in (None, project_id):
            raise InvalidRequest("Datasets are made of the reviews of the key's own project only.")
        return self.model_copy(update={"source": source.model_copy(update={"project_id": project_id})})


def _key(place: str, bucket: str) -> str:
    if place.startswith("s3://"):
        named, _, place = place.removeprefix("s3://").partition("/")
        if named != bucket:
            raise InvalidRequest(f"Datasets are imported from the bucket {bucket} only.")
    folder, *rest = place.split("/")
    if not _KEY.fullmatch(place) or not folder or folder in OWN_FOLDERS or {".", ".."} & {folder, *rest}:
        raise InvalidRequest("A place is a key of the bucket outside Carina's own folders, or s3://BUCKET/KEY.")
    return place
