"""Where a backup keeps objects: no key leads out of its folder, and no two keys share a path."""

from pathlib import Path

import pytest

from deploy.backup.folder import BackupFolder, digest_of

SHA256 = "0a" * 32


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", "a//b", "./a", "a/../../b", "films/Ä.dcm", "a/%2E"])
def test_no_key_leads_out_of_the_folder(key: str, tmp_path: Path) -> None:
    objects = (tmp_path / "objects").resolve()
    assert objects in BackupFolder(tmp_path).path_of(key).resolve().parents


def test_keys_have_paths_of_their_own(tmp_path: Path) -> None:
    keys = ["a/b", "a//b", "a/./b", "a/../b", "a/%2E/b", "a/%2E%2E/b", "a/%/b", "b"]
    assert len({BackupFolder(tmp_path).path_of(key) for key in keys}) == len(keys)


def test_only_objects_of_carina_have_a_digest() -> None:
    assert digest_of(f"originals/0a/{SHA256}") == SHA256
    assert digest_of(f"renditions/0a/{SHA256}.png") == SHA256
    assert digest_of(f"checkpoints/0197f3c2-0000-7000-8000-000000000000/{SHA256}.pt") == SHA256
    assert digest_of(f"films/{SHA256}") is None
    assert digest_of(f"incoming/0197f3c2/{SHA256}") is None
    assert digest_of("originals/0a/other") is None
