"""VinBigData's table: read, refused with the line's number, and written back exactly."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.dataset_source import VinBigDataSource
from tests.vinbigdata import convert
from trainer.datasets.annotations import MalformedAnnotations
from trainer.datasets.coco import read_coco
from trainer.datasets.vinbigdata import COLUMNS, read_table, write_table

HEADING = ",".join(COLUMNS)
ROWS = [
    "film1,Cardiomegaly,3,R10,691.0,1375.0,1653.0,1831.0",
    "film1,Cardiomegaly,3,R9,690.5,1370.25,1650.0,1830.0",
    "film1,Nodule/Mass,8,R9,10.0,20.0,30.0,40.0",
    "film1,No finding,14,R8,,,,",
    "film2,No finding,14,R10,,,,",
    "film2,No finding,14,R11,,,,",
]


def unfused() -> VinBigDataSource:
    return VinBigDataSource.model_validate(
        {
            "annotations": "",
            "images": "",
            "consensus": {"method": "none"},
            "splits": {"train": 0.5, "val": 0.5, "test": 0},
        }
    )


def table(*rows: str) -> bytes:
    return "\n".join([HEADING, *rows, ""]).encode()


def test_a_table_is_read() -> None:
    annotations = read_table(table(*ROWS))
    assert [(category.id, category.name) for category in annotations.categories] == [
        (3, "Cardiomegaly"),
        (8, "Nodule/Mass"),
    ], "'No finding' is no category"
    first, second = annotations.images
    assert (first.file_name, first.readers) == ("film1", ("R10", "R8", "R9"))
    assert first.boxes[1].xyxy_px == (690.5, 1370.25, 1650.0, 1830.0)
    assert [box.readers for box in first.boxes] == [("R10",), ("R9",), ("R9",)]
    assert (second.readers, second.boxes) == (("R10", "R11"), ())


def test_a_gzipped_table_with_a_byte_order_mark_is_the_same() -> None:
    assert read_table(gzip.compress(b"\xef\xbb\xbf" + table(*ROWS))) == read_table(table(*ROWS))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("film,Cardiomegaly,3,R1,1,2,3", "another number of fields"),
        ("film,Cardiomegaly,3,R1,1,2,3,4,5", "another number of fields"),
        (",Cardiomegaly,3,R1,1,2,3,4", "must not be empty"),
        ("film,Cardiomegaly,3,,1,2,3,4", "must not be empty"),
        ("film,Cardiomegaly,three,R1,1,2,3,4", "whole number"),
        ("film,Cardiomegaly,-3,R1,1,2,3,4", "negative"),
        ("film,Cardiomegaly,8,R1,1,2,3,4", "is called 'Nodule/Mass' further up"),
        ("film,Cardiomegaly,14,R1,1,2,3,4", "and no other, must be called"),
        ("film,No finding,3,R1,1,2,3,4", "and no other, must be called"),
        ("film,No finding,14,R1,1,2,3,4", "must have no box"),
        ("film,Cardiomegaly,3,R1,,,,", "must be numbers"),
        ("film,Cardiomegaly,3,R1,1,2,x,4", "must be numbers"),
        ("film,Cardiomegaly,3,R1,1,2,inf,4", "finite"),
        ("film,Cardiomegaly,3,R1,1,2,nan,4", "finite"),
        ("film,Cardiomegaly,3,R1,3,2,3,4", "area"),
        ("film,Cardiomegaly,3,R1,3,4,5,2", "area"),
        ("film,Cardiomegaly,3,R1,-1,2,3,4", "no negative corner"),
        ("film1,No finding,14,R9,,,,", "normal more than once"),
        ("film2,No finding,14,R10,,,,", "normal more than once"),
        ("film2,Cardiomegaly,3,R10,1,2,3,4", "in one row only"),
        ('film,"Cardiomegaly"x,3,R1,1,2,3,4', "expected after"),
    ],
)
def test_a_malformed_row_is_named_by_its_line(row: str, complaint: str) -> None:
    with pytest.raises(MalformedAnnotations) as refused:
        read_table(table(*ROWS, row))
    assert refused.value.code == "malformed_annotations"
    assert str(refused.value).startswith(f"Line {len(ROWS) + 2}: ")
    assert complaint in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"image_id,class_name\n", b"\x1f\x8bno gzip", b"\xff\xfe\x00", table(*ROWS)[9:]])
def test_what_is_no_such_table_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedAnnotations):
        read_table(data)


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(MalformedAnnotations, match="same name"):
        read_table(table(*ROWS, "film1,Cardiomegaly,4,R1,1,2,3,4"))


corner = st.floats(0, 4000, allow_subnormal=False)
interval = st.tuples(corner, corner).filter(lambda pair: pair[0] != pair[1]).map(sorted)
box = st.tuples(st.sampled_from([(0, "Aortic enlargement"), (8, "Nodule, or mass")]), interval, interval)
reading = st.lists(box, max_size=3)


@given(st.dictionaries(st.tuples(st.sampled_from("abcd"), st.sampled_from(["R1", "R2", "R3"])), reading, min_size=1))
def test_a_table_survives_the_way_through_coco(readings: dict[tuple[str, str], list[object]]) -> None:
    """Table to COCO to table gives each row as often as before, every digit of it."""
    rows = []
    for (image, reader), boxes in readings.items():
        for (class_id, name), (left, right), (top, bottom) in boxes:  # type: ignore[misc]
            rows.append(f'{image},"{name}",{class_id},{reader},{left!r},{top!r},{right!r},{bottom!r}')
        if not boxes:
            rows.append(f"{image},No finding,14,{reader},,,,")
    # Two images, so that there is something for both splits.
    before = read_table(table(*rows, "x,No finding,14,R1,,,,", "y,No finding,14,R1,,,,"))
    after = read_coco(convert(write_table(before).encode(), unfused()))
    assert Counter(write_table(after).splitlines()) == Counter(write_table(before).splitlines())


def test_the_real_table_survives_the_way_through_coco(shared_data: Path) -> None:
    text = gzip.decompress((shared_data / "vinbigdata" / "train.csv.gz").read_bytes())
    document = convert(text, unfused())
    assert Counter(write_table(read_coco(document)).splitlines()) == Counter(text.decode().splitlines())
    content = json.loads(document)
    assert len(content["images"]) == 15_000
    assert len(content["annotations"]) == 36_096
    assert [category["id"] for category in content["categories"]] == list(range(14))
