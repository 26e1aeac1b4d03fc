"""Makes annotations from reviews: for each image with a complete review, the findings that its readers accepted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.database import Database
from shared.detector.card import Category
from shared.errors import ObjectMissing
from shared.object_store import ObjectStore, original_key
from shared.reviews.fold import Review
from shared.reviews.threads import fold_jobs
from shared.tables import Image, Job, Model, ReviewEvent
from trainer.datasets.annotations import AnnotatedImage, Annotations, Box, MalformedAnnotations, study_pseudonym
from trainer.datasets.places import ImageMissing

#: An image that was left out because its review is not complete.
INCOMPLETE = "review_incomplete"
_JOBS_AT_ONCE = 200


class Originals:
    """The originals of the projects, named by their digests."""

    def __init__(self, store: ObjectStore, sha256s: Sequence[str]) -> None:
        self._store = store
        self._sha256s = sha256s

    def names(self) -> Sequence[str]:
        """Return the digests."""
        return self._sha256s

    def read(self, name: str) -> bytes:
        """Return the bytes of an original. Raises `ImageMissing` and `ObjectCorrupt`."""
        try:
            return self._store.get(original_key(name), sha256=name)
        except ObjectMissing:
            raise ImageMissing from None


def read_reviews(database: Database, project_id: UUID) -> Annotations:
    """Read the reviews of a project. If an image has several, the latest complete one counts.

    The classes are those of the models whose findings were reviewed. Raises `MalformedAnnotations` if two models use
    different names for the same class.
    """
    taken: dict[UUID, AnnotatedImage] = {}
    seen: set[UUID] = set()
    models: Counter[UUID] = Counter()
    events = 0
    with database.begin() as session:
        for image, model_id, review in _last_first(session, project_id):
            seen.add(image.id)
            if review.is_complete and image.id not in taken:
                taken[image.id] = _annotate(image, review)
                models[model_id] += 1
                events += review.last_event
        cards = sa.select(Model).where(Model.id.in_(models)).order_by(Model.id)
        reviewed = session.scalars(cards).all()
        categories = _categories(reviewed)
        under = [{"name": model.name, "digest": model.digest, "images": models[model.id]} for model in reviewed]
    left_out = len(seen) - len(taken)
    return Annotations(
        categories=categories,
        images=tuple(taken.values()),
        noted={INCOMPLETE: left_out} if left_out else {},
        provenance={"reviewed_findings_of": under, "review_events": events},
    )


def _last_first(session: Session, project_id: UUID) -> Iterator[tuple[Image, UUID, Review]]:
    """Yield the image, the model and the review of each reviewed result, the latest first."""
    reviewed = sa.select(ReviewEvent.job_id).where(ReviewEvent.project_id == project_id).group_by(ReviewEvent.job_id)
    reviewed = reviewed.order_by(sa.func.max(ReviewEvent.created_at).desc(), ReviewEvent.job_id.desc())
    every = session.scalars(reviewed).all()
    for start in range(0, len(every), _JOBS_AT_ONCE):
        job_ids = every[start : start + _JOBS_AT_ONCE]
        reviews = fold_jobs(session, job_ids)
        images = sa.select(Job.id, Job.model_id, Image).join(Image, Image.id == Job.image_id).where(Job.id.in_(job_ids))
        rows = {row.id: row for row in session.execute(images)}
        for job_id in job_ids:
            yield rows[job_id].Image, rows[job_id].model_id, reviews[job_id]


def _annotate(image: Image, review: Review) -> AnnotatedImage:
    boxes = [
        Box(finding.class_id, finding.box_xyxy_px, tuple(sorted(map(str, finding.readers))))
        for finding in review.accepted()
    ]
    return AnnotatedImage(
        file_name=image.sha256,
        boxes=tuple(boxes),
        readers=tuple(sorted(map(str, review.readers))),
        study=study_pseudonym(image.study_id),
        height_px=image.height_px,
        width_px=image.width_px,
    )


def _categories(models: Sequence[Model]) -> tuple[Category, ...]:
    names: dict[int, str] = {}
    for model in models:
        for category in map(Category.model_validate, model.card["categories"]):
            if names.setdefault(category.id, category.name) != category.name:
                raise MalformedAnnotations(f"The reviewed models call class {category.id} by different names.")
    if len(set(names.values())) < len(names):
        raise MalformedAnnotations("The reviewed models have one class under different numbers.")
    return tuple(Category(id=id_, name=name) for id_, name in sorted(names.items()))
