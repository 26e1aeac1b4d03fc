"""The one folder that a process writes temporary files to, so that the rest of its file system may be read-only.

It is `TMPDIR`, by default `/tmp`, which every user of the machine may write to. So what is made there has a name that
nobody can guess, or lies below `own_folder`, which is ours alone. Libraries that keep caches in the home folder are
pointed there too. Nothing else of Carina makes temporary files by itself.
"""

import os
import stat
import tempfile
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO

from shared.errors import SetupError

#: What a process ends with that has no such folder.
EXIT_NO_SCRATCH = 5

#: The variable by which each library is told where to keep what it computes, and the folder's name.
_CACHES = {
    "CUDA_CACHE_PATH": "cuda",
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "XDG_CACHE_HOME": "cache",
}


class ScratchUnwritable(SetupError):
    """The folder for temporary files is not writable."""

    code = "scratch_unwritable"


class FolderNotOurs(SetupError):
    """The folder for temporary files is a link, or other users may write to it."""

    code = "folder_not_ours"


def use_scratch(environ: MutableMapping[str, str] = os.environ) -> Path:
    """Keep this process and its children to one folder for temporary files; return it.

    A variable that the operator has set for one of the caches stays as it is. Raises `ScratchUnwritable`.
    """
    own = own_folder(environ)
    folder = own.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)  # which a full disk refuses
        _make_private(own)
    except OSError as exc:
        raise ScratchUnwritable(
            f"The folder for temporary files, {exc.filename if exc.filename == str(own) else folder}, "
            f"cannot be written ({exc.strerror}): set TMPDIR to a folder that this process may write to."
        ) from exc
    tempfile.tempdir = str(folder)
    environ["TMPDIR"] = str(folder)
    for name, place in _CACHES.items():
        environ.setdefault(name, str(own / place))
    return folder


def own_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where this user's processes keep what outlives them; `make_private` makes it."""
    return Path(environ.get("TMPDIR") or "/tmp").absolute() / f"carina-{os.getuid()}"


def make_private(folder: Path, remedy: str = "remove it") -> Path:
    """Make a folder, and those above it, that this user alone may enter, or make sure of one that is there.

    Raises `FolderNotOurs` for a link, for the folder of another user and for one that others may write to, and
    `OSError` where it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        _make_private(folder)
    except PermissionError as exc:
        raise FolderNotOurs(f"{folder} cannot be used: {exc.strerror}. Please {remedy}.") from exc
    return folder


def is_private(folder: Path) -> bool:
    """Whether there is such a folder and nobody else may write there."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step: readers find the old one or the new one, whole, and no link is followed."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as unfinished:
        unfinished.write(data)
    Path(unfinished.name).replace(path)


def new_text_file(prefix: str, text: str) -> Path:
    """Write a file that stays, under a name that nobody can guess."""
    with tempfile.NamedTemporaryFile("w", prefix=prefix, suffix=".txt", delete=False) as file:
        file.write(text)
    return Path(file.name)


def new_folder(prefix: str) -> Path:
    """Make a folder that stays, under a name that nobody can guess."""
    return Path(tempfile.mkdtemp(prefix=prefix))


def passing_folder(prefix: str) -> AbstractContextManager[str]:
    """Make a folder that goes with its context, under a name that nobody can guess."""
    return tempfile.TemporaryDirectory(prefix=prefix)


def nameless_file() -> BinaryIO:
    """Return a file that has no name and goes when it is closed."""
    return tempfile.TemporaryFile()


def spooled_file(max_bytes: int) -> "tempfile.SpooledTemporaryFile[bytes]":
    """Return a file that stays in memory up to so many bytes, and has no name beyond; 0: it stays there."""
    return tempfile.SpooledTemporaryFile(max_size=max_bytes)


def _make_private(folder: Path) -> None:
    """Raise `PermissionError` unless nobody else may write there: what lies in it is run as code, or is private."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not is_private(folder):
        raise PermissionError(0, "it belongs to somebody else, or is a link", str(folder))
    # Through the folder itself, for a path may have become a link since.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
