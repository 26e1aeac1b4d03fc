"""Which files a client finds in what it is given."""

import os
from pathlib import Path

import pytest
from pydicom import Dataset, Sequence
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from api.client.files import walk

Refused = list[tuple[str, str]]


def found(*paths: Path, recursive: bool = True) -> tuple[list[str], Refused]:
    """The names of the files, and what was refused with which code."""
    refused: Refused = []

    def refuse(path: Path, error: Exception) -> None:
        refused.append((path.name, getattr(error, "code", type(error).__name__)))

    files = walk(paths, recursive=recursive, on_unreadable=refuse)
    base = Path(os.path.commonpath([path.absolute() for path in paths]))
    return [str(file.relative_to(base)) for file in files], refused


def write_dicomdir(folder: Path, *references: list[str] | str) -> Path:
    """A DICOMDIR of nothing but these references."""
    directory = Dataset()
    directory.DirectoryRecordSequence = Sequence([Dataset() for _ in references])
    for record, reference in zip(directory.DirectoryRecordSequence, references, strict=True):
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = reference
    directory.ensure_file_meta()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


def test_folders_are_walked_in_order_and_links_out_of_them_are_not_followed(tmp_path: Path) -> None:
    for name in ("b/2.dcm", "b/1.dcm", "a.dcm", "b/deep/3.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert found(tmp_path) == (["a.dcm", "b/1.dcm", "b/2.dcm", "b/deep/3.dcm"], [])
    assert found(tmp_path / "b", recursive=False) == (["1.dcm", "2.dcm"], [])
    # What is named but not there is for the sender to say.
    assert found(tmp_path / "a.dcm", tmp_path / "none.dcm") == (["a.dcm", "none.dcm"], [])


def test_a_dicomdir_names_the_files_of_its_folder(tmp_path: Path) -> None:
    disc = tmp_path / "disc"
    for name in ("VIEWER.EXE", "IM1", "PT1/IM2", "PT1/IM3"):
        (disc / name).parent.mkdir(parents=True, exist_ok=True)
        (disc / name).touch()
    directory = write_dicomdir(disc, "IM1", ["PT1", "IM3"])
    expected = ["disc/IM1", "disc/PT1/IM3"]
    assert found(tmp_path) == (expected, [])
    assert found(directory, tmp_path) == (expected * 2, [])


def test_a_disc_may_be_mounted_in_small_letters(tmp_path: Path) -> None:
    (tmp_path / "im1").touch()
    write_dicomdir(tmp_path, "IM1")
    assert found(tmp_path) == (["im1"], [])


@pytest.mark.filterwarnings("ignore:(Invalid value|The value length).*:UserWarning")
@pytest.mark.parametrize("reference", [["..", "secret"], "/etc/passwd", ["a/../../secret"], ["LINK"]])
def test_a_reference_that_leaves_the_folder_is_refused(tmp_path: Path, reference: list[str] | str) -> None:
    disc = tmp_path / "disc"
    disc.mkdir()
    (tmp_path / "secret").touch()
    (disc / "LINK").symlink_to(tmp_path / "secret")
    (disc / "IM1").touch()
    write_dicomdir(disc, reference, "IM1")
    assert found(disc) == (["IM1"], [("DICOMDIR", "unsafe_reference")])


def test_a_broken_dicomdir_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").write_bytes(b"no directory")
    assert found(tmp_path) == ([], [("DICOMDIR", "unreadable_dicomdir")])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o000)
    assert found(tmp_path) == ([], [("closed", "PermissionError")])
