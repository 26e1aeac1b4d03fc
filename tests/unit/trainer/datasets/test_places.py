"""Finding the file of an image that annotations name."""

from pathlib import Path

import pytest

from trainer.datasets.places import AmbiguousImage, Catalogue, Folder, ImageMissing, UnreadableFile, UnsafeFileName


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"outside")
    inside = tmp_path / "films"
    for name in ("a.dicom", "a.png", "b", "c.v2.png", "sub/d.dcm", "left/e.png", "right/e.png", "f.txt", "g.PNG", "h"):
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        (inside / name).write_bytes(name.encode())
    return Folder(inside)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("a.png", "a.png"),
        ("a", "a.dicom"),
        ("b", "b"),
        ("c.v2.png", "c.v2.png"),
        ("c.v2", "c.v2.png"),
        ("d", "sub/d.dcm"),
        ("d.dcm", "sub/d.dcm"),
        ("sub/d.dcm", "sub/d.dcm"),
        ("sub\\d.dcm", "sub/d.dcm"),
        ("./a.png", "a.png"),
        ("right/e.png", "right/e.png"),
        ("g", "g.PNG"),
        ("g.dicom", "g.PNG"),
        ("h.png", "h"),
        ("d.jpg", "sub/d.dcm"),
        ("sub/d", "sub/d.dcm"),
        ("sub/d.dicom", "sub/d.dcm"),
    ],
)
def test_a_file_is_found_by_its_name(folder: Folder, asked: str, found: str) -> None:
    name = Catalogue(folder).find(asked)
    assert name == found
    assert folder.read(name) == found.encode()


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ("../outside.png", UnsafeFileName),
        ("sub/../../outside.png", UnsafeFileName),
        ("..\\outside.png", UnsafeFileName),
        ("/etc/passwd", UnsafeFileName),
        ("nowhere", ImageMissing),
        ("a.jpg", ImageMissing),
        ("other/d.dcm", ImageMissing),
        ("other/d.png", ImageMissing),
        ("f.png", ImageMissing),
        ("f", ImageMissing),
        ("", ImageMissing),
        ("e", AmbiguousImage),
        ("e.png", AmbiguousImage),
    ],
)
def test_what_is_no_file_of_the_folder_is_said_to_be_so(folder: Folder, asked: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Catalogue(folder).find(asked)


def test_a_file_that_is_gone_or_closed_is_an_error_of_its_own(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(ImageMissing):
        folder.read("gone.png")
    with pytest.raises(UnreadableFile):
        folder.read("sub")
