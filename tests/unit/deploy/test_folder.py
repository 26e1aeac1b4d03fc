"""The data folder of a stack, and what others may have put in its place."""

import os
from pathlib import Path

import pytest

from deploy.stack.errors import StackError
from deploy.stack.folder import Folder


@pytest.mark.parametrize("name", ["run", "log", "tmp"])
def test_a_link_in_the_place_of_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    (target := tmp_path / "target").mkdir()
    (data := tmp_path / "data").mkdir(0o700)
    (data / name).symlink_to(target)
    with pytest.raises(StackError, match=f"{name} cannot be used: it belongs to somebody else, or is a link"):
        Folder(data).make()
    assert not list(target.iterdir())


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    data.chmod(0o777)
    with pytest.raises(StackError, match=f"Others may write to {data}: `chmod go-w {data}`"):
        Folder(data).make()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a folder of another user")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    os.chown(data, 65534, 65534)
    with pytest.raises(StackError, match="belongs to user 65534"):
        Folder(data).make()


def test_temporary_files_of_a_killed_run_go_and_its_caches_stay(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    folder.make()
    assert folder.temporary.stat().st_mode & 0o777 == 0o700
    kept = folder.temporary / f"carina-{os.getuid()}" / "renditions"
    kept.mkdir(parents=True)
    (folder.temporary / "carina-phantoms-x").mkdir()
    (folder.temporary / "carina-phantoms-x" / "image.dcm").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (folder.temporary / "link").symlink_to(tmp_path / "outside")
    folder.clear_temporary()
    assert [path.name for path in folder.temporary.iterdir()] == [f"carina-{os.getuid()}"]
    assert kept.exists()
    assert (tmp_path / "outside" / "file").exists()
