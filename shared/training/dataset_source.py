"""What a dataset is made from and how. The API checks it, the row stores it, the import follows it; torch-free."""

import math
import re
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from shared.bounded import Bounded
from shared.errors import InvalidRequest

#: Folders of the bucket that are Carina's own: what projects sent in is not to be read by way of an import.
OWN_FOLDERS = frozenset(
    {"originals", "renditions", "incoming", "models", "datasets", "checkpoints", "results"},
)
_KEY = re.compile(r"[A-Za-z0-9!_.'()/ -]{1,1000}")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,99}$")]


class Consensus(Bounded):
    """How the boxes of several readers become one truth."""

    #: `wbf`: boxes that overlap are averaged (arXiv:1910.13302); `nms`: of them the one that the others agree with
    #: most is kept; `none`: every box stays as its reader drew it.
    method: Literal["wbf", "nms", "none"] = "wbf"
    #: Boxes of one class that overlap by more than this are one finding.
    iou: float = Field(0.5, gt=0, lt=1)
    #: A finding that fewer readers have drawn is left out.
    min_readers: int = Field(1, ge=1, le=100)
    #: Whose readings count; None: everybody's. Images that none of them has read are left out.
    readers: tuple[str, ...] | None = Field(None, min_length=1, max_length=100)

    @model_validator(mode="after")
    def _unfused_boxes_have_one_reader(self) -> Self:
        if self.method == "none" and self.min_readers > 1:
            raise ValueError("without a consensus every box has one reader: min_readers must be 1")
        return self


class SplitPlan(Bounded):
    """Which share of the patients goes where."""

    train: float = Field(0.8, ge=0, le=1)
    val: float = Field(0.1, ge=0, le=1)
    test: float = Field(0.1, ge=0, le=1)
    seed: int = Field(0, ge=0, lt=2**31)
    #: Take each image's split as the annotations have it, instead.
    keep: bool = False

    @model_validator(mode="after")
    def _shares_make_a_whole(self) -> Self:
        if not math.isclose(self.train + self.val + self.test, 1, abs_tol=1e-6):
            raise ValueError("the shares of train, val and test must add up to 1")
        return self


class _Files(Bounded):
    #: A file, or an object's key.
    annotations: Annotated[str, Field(max_length=4096)]
    #: The folder, or the prefix of the keys, that the images lie under.
    images: Annotated[str, Field(max_length=4096)]
    #: Whether DICOM's PatientID (as a pseudonym) groups images where the annotations name no patient.
    patients_from_dicom: bool = True
    splits: SplitPlan = SplitPlan()

    @property
    def keeps_splits(self) -> bool:
        """Whether the annotations say which image is in which split."""
        return self.splits.keep


class VinBigDataSource(_Files):
    """A table as VinBigData's `train.csv`: a row for each box that a reader drew, or for a reader who found none."""

    format: Literal["vinbigdata"] = "vinbigdata"
    consensus: Consensus = Consensus()


class CocoSource(_Files):
    """One COCO document, or one for each split."""

    format: Literal["coco"] = "coco"
    #: With either of these the documents are the splits: `annotations` is the training split.
    val_annotations: str | None = None
    test_annotations: str | None = None
    consensus: Consensus = Consensus(method="none")

    @property
    def keeps_splits(self) -> bool:
        """Whether the annotations say which image is in which split, or the documents are the splits."""
        return self.splits.keep or self.val_annotations is not None or self.test_annotations is not None


class PhantomsSource(Bounded):
    """Synthetic films with known lesions."""

    format: Literal["phantoms"] = "phantoms"
    films: int = Field(400, ge=4, le=20_000)
    #: Films of different seeds have nothing in common.
    seed: int = Field(0, ge=0, le=999)
    #: Whether classes come evenly; else as often as on real films.
    balanced: bool = True
    #: Share of the films that come as negatives, black for white, as of a machine that tags them wrongly.
    negative_share: float = Field(0.0, ge=0, le=1)
    splits: SplitPlan = SplitPlan(train=0.8, val=0.2, test=0)

    @property
    def keeps_splits(self) -> bool:
        """Whether the films come with splits: no."""
        return False


class ReviewsSource(Bounded):
    """What a project's readers made of its images: those whose review is done, with the findings that were accepted."""

    format: Literal["reviews"] = "reviews"
    #: Through the API it is the key's own, and need not be said.
    project_id: UUID | None = None
    #: Images of one study are kept together, where DICOM's PatientID (as a pseudonym) does not keep together more.
    patients_from_dicom: bool = True
    #: One image has one review, which its readers have made together.
    consensus: Consensus = Consensus(method="none")
    splits: SplitPlan = SplitPlan(train=0.8, val=0.2, test=0)

    @property
    def keeps_splits(self) -> bool:
        """Whether the reviews come with splits: no."""
        return False


Source = VinBigDataSource | CocoSource | PhantomsSource | ReviewsSource


class DatasetRequest(Bounded):
    """A dataset to be made of what lies in the object store."""

    name: Name
    source: Annotated[Source, Field(discriminator="format")]

    def in_bucket(self, bucket: str) -> Self:
        """Return the same with plain keys and a prefix of `bucket`; raise `InvalidRequest` for any other place."""
        source = self.source
        if isinstance(source, PhantomsSource | ReviewsSource):
            return self
        places = {name: place for name, place in source if name.endswith("annotations") and place is not None}
        keys = {name: _key(place, bucket) for name, place in places.items()}
        keys["images"] = _key(source.images, bucket).rstrip("/") + "/"
        return self.model_copy(update={"source": source.model_copy(update=keys)})

    def places(self) -> list[str]:
        """Return the keys and the prefix that are read."""
        named = {name: place for name, place in self.source if name == "images" or name.endswith("annotations")}
        return [place for place in named.values() if place is not None]

    def in_project(self, project_id: UUID) -> Self:
        """Return the same with the reviews of `project_id`; raise `InvalidRequest` for any other project's."""
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
