"""What may be asked of an import, and which places of the bucket it may read."""

import pytest
from pydantic import ValidationError

from shared.errors import InvalidRequest
from shared.training.dataset_source import OWN_FOLDERS, CocoSource, Consensus, DatasetRequest, SplitPlan


def request(
    annotations: str = "hospital/train.json", images: str = "hospital/images", **more: object
) -> DatasetRequest:
    source = {"format": "coco", "annotations": annotations, "images": images, **more}
    return DatasetRequest.model_validate({"name": "films", "source": source})


def test_places_become_keys_of_the_bucket() -> None:
    asked = request("s3://ward/a/train.json", "s3://ward/a/images", val_annotations="a/val.json")
    source = asked.in_bucket("ward").source
    assert isinstance(source, CocoSource)
    assert (source.annotations, source.val_annotations, source.images) == ("a/train.json", "a/val.json", "a/images/")
    assert source.test_annotations is None


@pytest.mark.parametrize("form", ["yolo", "voc"])
def test_annotations_in_many_files_are_a_folder(form: str) -> None:
    source = request("s3://ward/a/labels", "a/images/", format=form).in_bucket("ward").source
    assert source.format == form
    assert (source.annotations, source.images) == ("a/labels/", "a/images/")


@pytest.mark.parametrize("place", ["s3://elsewhere/a", "s3://ward/", "", "/a", "a/../originals/b", "..", "./a", "a?b"])
def test_other_places_are_refused(place: str) -> None:
    for asked in (request(annotations=place), request(images=place), request(val_annotations=place)):
        with pytest.raises(InvalidRequest):
            asked.in_bucket("ward")


@pytest.mark.parametrize("folder", sorted(OWN_FOLDERS))
def test_what_projects_sent_in_cannot_be_imported(folder: str) -> None:
    for place in (folder, f"{folder}/", f"{folder}/ab/cd", f"s3://ward/{folder}/ab"):
        with pytest.raises(InvalidRequest):
            request(images=place).in_bucket("ward")
    # A longer name is another folder.
    assert request(images=f"{folder}2").in_bucket("ward").source.images == f"{folder}2/"


def test_shares_make_a_whole_and_unfused_boxes_have_one_reader() -> None:
    with pytest.raises(ValidationError, match="add up to 1"):
        SplitPlan(train=0.8, val=0.1, test=0.2)
    with pytest.raises(ValidationError, match="min_readers must be 1"):
        Consensus(method="none", min_readers=2)


@pytest.mark.parametrize("name", ["", " images", "../images", "images\n", "x" * 101, "fïlms"])
def test_a_name_is_plain(name: str) -> None:
    with pytest.raises(ValidationError):
        DatasetRequest.model_validate({"name": name, "source": {"format": "phantoms"}})
