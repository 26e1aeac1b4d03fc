"""Tables of boxes: read in the forms that go around, odd rows noted by their line, and written back exactly."""

import gzip
import io
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.training.dataset_source import VinBigDataSource
from tests.vinbigdata import COLUMNS, convert, write_table
from trainer.datasets.annotations import MalformedAnnotations
from trainer.datasets.coco import read_coco
from trainer.datasets.notes import describe
from trainer.datasets.vinbigdata import read_table

HEADING = ",".join(COLUMNS)
ROWS = [
    "image1,Cardiomegaly,3,R10,691.0,1375.0,1653.0,1831.0",
    "image1,Cardiomegaly,3,R9,690.5,1370.25,1650.0,1830.0",
    "image1,Nodule/Mass,8,R9,10.0,20.0,30.0,40.0",
    "image1,No finding,14,R8,,,,",
    "image2,No finding,14,R10,,,,",
    "image2,No finding,14,R11,,,,",
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
    assert (first.file_name, first.readers) == ("image1", ("R10", "R8", "R9"))
    assert first.boxes[1].xyxy_px == (690.5, 1370.25, 1650.0, 1830.0)
    assert [box.readers for box in first.boxes] == [("R10",), ("R9",), ("R9",)]
    assert (second.readers, second.boxes) == (("R10", "R11"), ())


def test_a_gzipped_table_with_a_byte_order_mark_is_the_same() -> None:
    assert read_table(gzip.compress(b"\xef\xbb\xbf" + table(*ROWS))) == read_table(table(*ROWS))


GOOD = [f"image{number},Cardiomegaly,3,R10,{number + 1},20,300,400" for number in range(20)]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("image,Cardiomegaly,3,R1,1,2,3", "row_unreadable"),
        ("image,Cardiomegaly,3,R1,1,2,3,4,5", "row_unreadable"),
        (",Cardiomegaly,3,R1,1,2,3,4", "row_unreadable"),
        ("image,Cardiomegaly,3,,1,2,3,4", "row_unreadable"),
        ("image,,,R1,1,2,3,4", "row_unreadable"),
        ("image,A\0B,5,R1,1,2,3,4", "row_unreadable"),
        ("image,Cardiomegaly,three,R1,1,2,3,4", "row_unreadable"),
        ("image,Cardiomegaly,3.5,R1,1,2,3,4", "row_unreadable"),
        ("image,Cardiomegaly,-3,R1,1,2,3,4", "row_unreadable"),
        ("image,Cardiomegaly,3,R1,,,,", "row_unreadable"),
        ("image,Cardiomegaly,3,R1,1,2,x,4", "row_unreadable"),
        ("image,Cardiomegaly,3,R1,1,2,inf,4", "row_unreadable"),
        ("image,Cardiomegaly,3,R1,1,2,nan,4", "row_unreadable"),
        ("image,Cardiomegaly,3,R1,3,2,3,4", "box_without_area"),
        ("image,Cardiomegaly,3,R1,3,4,5,2", "corners_swapped"),
        ("image,Cardiomegaly,8,R1,1,2,3,4", "class_contradicts"),
        ("image,Nodule/Mass,3,R1,1,2,3,4", "class_contradicts"),
        ("image1,No finding,14,R10,,,,", "normal_contradicts"),
        (GOOD[1], "row_repeated"),
    ],
)
def test_an_odd_row_costs_itself_and_is_noted_with_its_line(row: str, code: str) -> None:
    annotations = read_table(table(*GOOD, row))
    assert annotations.noted == {code: 1}
    assert annotations.culprits == {code: (f"line {len(GOOD) + 2}",)}
    assert [image.file_name for image in annotations.images] == [f"image{number}" for number in range(20)]
    assert [category.name for category in annotations.categories] == ["Cardiomegaly"]


def test_a_note_names_the_first_three_and_counts_the_rest() -> None:
    flat = [f"odd{number},Cardiomegaly,3,R1,1,2,1,4" for number in range(5)]
    (note,) = describe(read_table(table(*GOOD, *flat)))["notes"]
    assert (note["code"], note["count"], note["first"]) == ("box_without_area", 5, ["line 22", "line 23", "line 24"])
    assert "left out: 5 (line 22, line 23, line 24 and 2 more)" in note["message"]


def test_a_table_of_odd_rows_is_refused_with_the_first_reason() -> None:
    with pytest.raises(MalformedAnnotations, match=r"^Line 3: x_max is below x_min.* 2 of 3 rows"):
        read_table(table(GOOD[0], "a,Cardiomegaly,3,R1,9,9,2,2", "b,Cardiomegaly,3,R1,9,9,3,3"))


@pytest.mark.parametrize(
    "cells", [",,,", "NaN,NaN,NaN,NaN", "nan,nan,nan,nan", "0,0,1,1", "0,0,0,0", "0.0,0.0,0.2,0.18", "-1,-1,-1,-1"]
)
def test_a_filled_in_row_without_a_finding_is_a_normal_reading(cells: str) -> None:
    annotations = read_table(table(*GOOD, f"image,No finding,14,R1,{cells}"))
    assert (annotations.images[-1].boxes, annotations.images[-1].readers) == ((), ("R1",))
    assert annotations.noted == {}


def test_a_box_in_a_row_without_a_finding_is_ignored_and_noted() -> None:
    annotations = read_table(table(*GOOD, "image,No finding,14,R1,1,2,300,400"))
    assert annotations.images[-1].boxes == ()
    assert annotations.culprits == {"box_of_no_finding": ("line 22",)}


def renamed(heading: str, *rows: str) -> bytes:
    return "\n".join([heading, *rows, ""]).encode()


def test_vindr_cxrs_own_tables_have_no_class_ids_and_may_have_no_readers() -> None:
    classes = ["Aortic enlargement", "Rib fracture", "Something new", "Nodule/Mass", "Clavicle fracture"]
    rows = [f"image{number},{name},1,2,3,4" for number, name in enumerate(classes)]
    annotations = read_table(renamed("image_id,class_name,x_min,y_min,x_max,y_max", *rows, "image9,No finding,,,,"))
    ids = {category.name: category.id for category in annotations.categories}
    # The challenge's classes keep its ids; those of VinDr-CXR alone have fixed ones beyond.
    expected = {"Aortic enlargement": 0, "Nodule/Mass": 8, "Clavicle fracture": 15, "Rib fracture": 22}
    assert ids == {**expected, "Something new": 23}
    assert [image.readers for image in annotations.images] == 6 * [()]
    assert annotations.images[0].boxes[0].readers == ()


@pytest.mark.parametrize(
    "data",
    [
        table(*ROWS).replace(b",", b";"),
        # A European spreadsheet: semicolons, and commas in numbers.
        table(*ROWS).replace(b",", b";").replace(b".", b","),
        table(*ROWS).replace(b",", b"\t"),
        table(*ROWS).replace(b"\n", b"\r\n"),
        table(*ROWS).replace(b"\n", b"\r"),
        b"sep=,\r\n" + table(*ROWS),
        table(*ROWS).replace(HEADING.encode(), HEADING.upper().encode()),
        table(*ROWS).replace(HEADING.encode(), ",".join(f'"{name}"' for name in COLUMNS).encode()),
        table(*ROWS).replace(HEADING.encode(), HEADING.replace("_", " ").encode()),
        table(*ROWS).replace(HEADING.encode(), HEADING.replace("x_", "x").replace("y_", "y").encode()),
        table(*ROWS).decode().encode("utf-16"),
        table(*ROWS).decode().replace(",", "\t").encode("utf-16-le"),
        table(*ROWS).replace(b",3,", b",3.0,"),
        table(*ROWS).replace(b",14,", b",14.0,").replace(b",,,,\n", b",0,0,1,1\n"),
        table(*ROWS) + b",,,,,,,\n\n",
        b"\n\n" + table(*ROWS),
    ],
)
def test_a_table_is_the_same_however_a_program_saves_it(data: bytes) -> None:
    assert read_table(data) == read_table(table(*ROWS))


@pytest.mark.parametrize("data", [b"", b"image_id,class_name\n", b"\x1f\x8bno gzip", b"\xff\xfe\x00", table(*ROWS)[9:]])
def test_what_is_no_such_table_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedAnnotations):
        read_table(data)


def test_a_zip_archive_of_one_table_is_read() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("train.csv", table(*ROWS))
    assert read_table(archive.getvalue()) == read_table(table(*ROWS))
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("test.csv", table(*ROWS))
    with pytest.raises(MalformedAnnotations, match="ZIP archive of 2 files"):
        read_table(archive.getvalue())
    with zipfile.ZipFile(workbook := io.BytesIO(), "w") as file:
        file.writestr("[Content_Types].xml", "")
    with pytest.raises(MalformedAnnotations, match="Save it as CSV"):
        read_table(workbook.getvalue())


def test_boxes_may_be_given_by_a_corner_and_a_size() -> None:
    row = "image,Cardiomegaly,10,20,30,40"
    for heading in ("x,y,w,h", "x,y,width,height", "x_min,y_min,box_width,box_height", "bbox_x,bbox_y,bbox_w,bbox_h"):
        annotations = read_table(renamed(f"image_id,class_name,{heading}", row))
        assert [box.xyxy_px for box in annotations.images[0].boxes] == [(10, 20, 40, 60)]
        assert annotations.images[0].width_px is None


@pytest.mark.parametrize("names", ["width,height", "orig_width,orig_height", "img_width,img_height", "dim1,dim0"])
def test_size_columns_are_the_size_of_the_annotated_image(names: str) -> None:
    rows = [row + ",2336,2080.0" for row in GOOD]
    contradicting = f"{GOOD[0].replace('R10', 'R11')},512,512"
    annotations = read_table(renamed(f"{HEADING},{names}", *rows, contradicting))
    assert {(image.width_px, image.height_px, image.scales) for image in annotations.images} == {(2336, 2080, True)}
    assert annotations.culprits == {"size_contradicts": ("line 22",)}


def test_boxes_may_have_sizes_and_images_too() -> None:
    (image,) = read_table(renamed("image_id,class_name,x,y,w,h,width,height", "a,Mass,1,2,30,40,512,600")).images
    assert (image.boxes[0].xyxy_px, image.width_px, image.height_px) == ((1, 2, 31, 42), 512, 600)


@pytest.mark.parametrize("reader", ["", "NaN"])
def test_a_reader_column_that_is_empty_is_none(reader: str) -> None:
    annotations = read_table(table(*(row.replace("R10", reader) for row in GOOD)))
    assert (len(annotations.images), annotations.images[0].readers, annotations.noted) == (20, (), {})


def test_ids_without_names_are_those_of_vinbigdata() -> None:
    heading = "image_id,class_id,x_min,y_min,x_max,y_max"
    annotations = read_table(renamed(heading, "a,3,1,2,3,4", "b,14,,,,"))
    assert [category.name for category in annotations.categories] == ["Cardiomegaly"]
    with pytest.raises(MalformedAnnotations, match=r"^Line 2: class 33 is none of"):
        read_table(renamed(heading, "a,33,1,2,3,4", "b,14,,,,"))


def test_a_table_whose_findings_are_odd_is_refused_whatever_the_number_of_its_normal_rows() -> None:
    normal = [f"normal{number},No finding,14,R1,,,," for number in range(50)]
    sizes = [f"odd{number},Cardiomegaly,3,R1,900,900,100,200" for number in range(4)]
    assert read_table(table(*normal, *sizes[:3])).noted == {"corners_swapped": 3}
    with pytest.raises(MalformedAnnotations, match="do these columns hold the size of the box"):
        read_table(table(*normal, *sizes))


def test_a_size_column_alone_is_refused() -> None:
    with pytest.raises(MalformedAnnotations, match="lacks height"):
        read_table(renamed(f"{HEADING},width", GOOD[0] + ",512"))


def test_a_column_that_comes_twice_is_refused() -> None:
    with pytest.raises(MalformedAnnotations, match="two columns of the heading are a x_min"):
        read_table(renamed(f"{HEADING},xmin", GOOD[0] + ",512"))


def test_beside_a_column_of_the_very_name_another_spelling_is_not_used() -> None:
    annotations = read_table(renamed(f"{HEADING},label,reader", GOOD[0] + ",1,somebody"))
    assert annotations == read_table(table(GOOD[0]))


def test_every_number_may_have_a_decimal_comma_where_semicolons_separate() -> None:
    heading = f"{HEADING},width,height".replace(",", ";")
    (image,) = read_table(renamed(heading, "image;Nodule/Mass;8,0;R1;1,5;2;30;40,25;512,0;256,0")).images
    assert (image.width_px, image.height_px) == (512, 256)
    assert [(box.category_id, box.xyxy_px) for box in image.boxes] == [(8, (1.5, 2, 30, 40.25))]


def test_a_separator_at_the_end_of_rows_is_no_field() -> None:
    assert read_table(table(*(f"{row}," for row in ROWS))) == read_table(table(*ROWS))


@pytest.mark.parametrize("name", ["", "nan", "NaN"])
def test_an_id_stands_for_a_name_that_is_empty(name: str) -> None:
    rows = [f"normal,{name},14,R1,,,,", f"image,{name},3,R1,1,2,30,40"]
    annotations = read_table(table(*rows))
    assert [image.file_name for image in annotations.images] == ["normal", "image"]
    assert [category.name for category in annotations.categories] == ["Cardiomegaly"]


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_of_contradicting_sizes_that_of_most_rows_counts(odd: int) -> None:
    rows = [f"image,Nodule/Mass,8,R{n},1,2,30,40,{512 if n == odd else 1024},1024" for n in range(3)]
    annotations = read_table(renamed(f"{HEADING},width,height", *rows))
    assert (annotations.images[0].width_px, len(annotations.images[0].boxes)) == (1024, 2)
    assert annotations.culprits == {"size_contradicts": (f"line {odd + 2}",)}


def test_a_quote_that_never_ends_is_refused_with_its_line() -> None:
    with pytest.raises(MalformedAnnotations, match=r"^Line 3: .*Mend the quotes"):
        read_table(table(GOOD[0], 'image,"Cardiomegaly"x,3,R1,1,2,3,4'))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("image1,Cardiomegaly,4,R1,1,2,3,4", "two classes have the same name"),
        ("image,Cardiomegaly,8,R1,1,2,3,4", "is called 'Nodule/Mass' further up and 'Cardiomegaly' here"),
        ("image,Cardiomegaly,14,R1,1,2,3,4", "is called 'No finding' further up"),
    ],
)
def test_ids_and_names_that_contradict_each_other_as_often_as_not_are_refused(row: str, complaint: str) -> None:
    with pytest.raises(MalformedAnnotations, match=complaint) as refused:
        read_table(table(*ROWS, row))
    assert str(refused.value).startswith(f"Line {len(ROWS) + 2}: ")


def test_spellings_of_one_class_are_one() -> None:
    rows = [
        "a,Aortic enlargement,0,R1,1,2,3,4",
        "b,Aortic Enlargement,0,R1,1,2,3,4",
        "c,aortic_enlargement,0.0,R1,1,2,3,4",
    ]
    assert [category.name for category in read_table(table(*rows)).categories] == ["Aortic enlargement"]


def test_a_heading_without_rows_is_refused() -> None:
    with pytest.raises(MalformedAnnotations, match="no rows below its heading"):
        read_table(table())


corner = st.floats(0, 4000, allow_subnormal=False)
interval = st.tuples(corner, corner).filter(lambda pair: pair[0] != pair[1]).map(sorted)
box = st.tuples(st.sampled_from([(0, "Aortic enlargement"), (8, "Nodule, or mass")]), interval, interval)
reading = st.lists(box, max_size=3)


@given(st.dictionaries(st.tuples(st.sampled_from("abcd"), st.sampled_from(["R1", "R2", "R3"])), reading, min_size=1))
def test_a_table_survives_the_way_through_coco(readings: dict[tuple[str, str], list[Any]]) -> None:
    """Table to COCO to table gives each row as often as before, every digit of it."""
    rows = []
    for (image, reader), boxes in readings.items():
        for (class_id, name), (left, right), (top, bottom) in boxes:
            rows.append(f'{image},"{name}",{class_id},{reader},{left!r},{top!r},{right!r},{bottom!r}')
        if not boxes:
            rows.append(f"{image},No finding,14,{reader},,,,")
    # Two images, so that there is something for both splits.
    before = read_table(table(*rows, "x,No finding,14,R1,,,,", "y,No finding,14,R1,,,,"))
    after = read_coco(convert(write_table(before).encode(), unfused()))
    assert Counter(write_table(after).splitlines()) == Counter(write_table(before).splitlines())


def test_a_file_name_like_a_formula_survives() -> None:
    before = read_table(table("'=1,Cardiomegaly,3,R1,1,2,3,4"))
    assert before.images[0].file_name == "=1"
    assert read_table(write_table(before).encode()) == before


def test_the_real_table_survives_the_way_through_coco(shared_data: Path) -> None:
    text = gzip.decompress((shared_data / "vinbigdata" / "train.csv.gz").read_bytes())
    document = convert(text, unfused())
    assert Counter(write_table(read_coco(document)).splitlines()) == Counter(text.decode().splitlines())
    content = json.loads(document)
    assert len(content["images"]) == 15_000
    assert len(content["annotations"]) == 36_096
    assert [category["id"] for category in content["categories"]] == list(range(14))
