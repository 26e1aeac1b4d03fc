"""The cache of a machine is bounded for all its ranks together, and each object is downloaded once."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from shared.object_store import rendition_key
from trainer.machine_cache import MachineCache

KIB = 1024
#: A rank that keeps objects of 1 KiB: FOLDER MAX_BYTES SEED COUNT.
RANK = """
import fcntl, hashlib, sys
from pathlib import Path
from trainer.machine_cache import MachineCache

class Store:
    def get(self, key, *, sha256):
        return objects[sha256]

folder, most, seed, count = Path(sys.argv[1]), *map(int, sys.argv[2:])
contents = [f"{seed} {number}".encode().ljust(1024) for number in range(count)]
objects = {hashlib.sha256(content).hexdigest(): content for content in contents}
cache = MachineCache(Store(), folder, most)
for sha256, content in objects.items():
    assert cache.get(f"renditions/{sha256[:2]}/{sha256}.png", sha256) == content
    with (folder / "bytes").open() as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)  # nobody changes the files while they are counted
        held = sum(file.stat().st_size for file in folder.glob("*/*"))
    assert held <= most, held
"""


class Shelf:
    """Objects of 1 KiB that are made when they are asked for; stands where `ObjectStore` does."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.objects: dict[str, bytes] = {}

    def add(self, number: int) -> str:
        content = str(number).encode().ljust(KIB)
        sha256 = hashlib.sha256(content).hexdigest()
        self.objects[sha256] = content
        return sha256

    def get(self, key: str, *, sha256: str) -> bytes:
        self.asked.append(sha256)
        return self.objects[sha256]


def cache_of(shelf: Shelf, folder: Path, max_bytes: int) -> MachineCache:
    return MachineCache(shelf, folder, max_bytes)


def test_ranks_keep_one_bound_together(tmp_path: Path) -> None:
    max_bytes = 20 * KIB
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path), str(max_bytes), str(seed), "60"])
        for seed in range(3)
    ]
    assert [rank.wait() for rank in ranks] == [0, 0, 0]
    held = list(tmp_path.glob("*/*"))
    assert sum(file.stat().st_size for file in held) <= max_bytes
    assert len(held) >= 10, "it is used"


def test_what_one_rank_has_read_no_other_downloads(tmp_path: Path) -> None:
    shelf = Shelf()
    kept = [shelf.add(number) for number in range(8)]
    for _ in range(3):
        cache = cache_of(shelf, tmp_path, 100 * KIB)
        for sha256 in kept:
            cache.get(rendition_key(sha256), sha256)
    assert sorted(shelf.asked) == sorted(kept)


def test_files_of_a_killed_rank_or_of_an_earlier_version_count_too(tmp_path: Path) -> None:
    for number in range(30):
        left = tmp_path / "ab" / f"tmp{number}"
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"x" * KIB)
        os.utime(left, (1, 1))
    shelf = Shelf()
    sha256 = shelf.add(0)
    cache = cache_of(shelf, tmp_path, 10 * KIB)
    cache.get(rendition_key(sha256), sha256)
    assert sum(file.stat().st_size for file in tmp_path.glob("*/*")) <= 10 * KIB
    assert cache.size_of(sha256) >= KIB, "the oldest files go first"


def test_a_number_that_is_too_large_is_corrected(tmp_path: Path) -> None:
    """A process that is killed after it has counted a file and before it has written it."""
    shelf = Shelf()
    (tmp_path / "bytes").write_bytes(b"%020d" % (9 * KIB))
    cache = cache_of(shelf, tmp_path, 10 * KIB)
    kept = [shelf.add(number) for number in range(8)]
    for sha256 in kept:
        cache.get(rendition_key(sha256), sha256)
    assert all(cache.size_of(sha256) >= KIB for sha256 in kept)
