"""Writes `docs/codes.md`, the table of all error codes, from the code: `python -m deploy.document_codes`."""

import importlib
import pkgutil
from collections.abc import Iterator
from functools import reduce
from operator import or_
from pathlib import Path

import api
import deploy
import shared
import trainer
import workers
from api.http.client_socket import BodyTooSlow
from api.http.errors import status_of
from api.http.limits import RateLimited
from shared.access.quotas import QuotaExceeded
from shared.errors import (
    CODES,
    CarinaError,
    NotReady,
    PermanentError,
    Place,
    PlainCode,
    RequestError,
    TransientError,
    UnsuitableImage,
    UploadCutShort,
    UploadError,
)

PAGE = Path(__file__).parents[1] / "docs" / "codes.md"

#: Where users see the codes of a package; the longest matching name applies.
_PLACES = {
    "api.client": Place.PYTHON_CLIENT | Place.COMMAND_LINE,
    "shared.intake": Place.FILE,
    "deploy": Place.COMMAND_LINE,
    "trainer": Place.TASK,
    "workers": Place.JOB | Place.FILE,
}
#: Errors of requests that can be sent again unchanged, in addition to those with `Retry-After`.
_TEMPORARY = (BodyTooSlow, NotReady, RateLimited, QuotaExceeded, UploadCutShort)
#: Objects that users can retry.
_RETRIED = Place.JOB | Place.FILE | Place.TASK
_HEAD = """\
# Error codes

Every error has a stable code. Programs compare the code; people read the message, whose wording may change. Over HTTP
an error is an RFC 9457 problem document (`application/problem+json`) with the field `code`. Jobs, files and tasks have
the fields `code` and `reason`.

* **HTTP** is the status of the answer to a request.
* **Tried again**: `no`: the same input fails again. `by Carina`: Carina retries with growing pauses; each try is an
  attempt. `by Carina, without limit`: as before, but the tries are not counted as attempts. `by you`: send the request
  again, after the seconds in `Retry-After` if the answer has it, or retry the job or the file. `after a change`: change
  the request or the settings first.
* **Seen in** tells where users meet the code: in the answer to a *request*; of a *file* of a request, a submission or a
  DICOM association; of a *job*; of a *task* (dataset import, training, evaluation, gate decision); of a *delivery* of a
  webhook; in a *health* check (`/readyz`, `carina doctor`); at the *start* of a process; on the *command line*; in the
  *Python client*.

This page is generated: `python -m deploy.document_codes`.

| Code | HTTP | Tried again | Seen in | Meaning |
|---|---|---|---|---|
"""


def load_all() -> None:
    """Import all modules that can define a code."""
    for package in (shared, api, workers, trainer, deploy):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "migrations" not in module.name and not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def page() -> str:
    """Return the text of `docs/codes.md`."""
    load_all()
    return _HEAD + "".join(_row(code) for code in sorted(CODES) if not _is_abstract(code))


def _row(code: str) -> str:
    entry = CODES[code]
    statuses = ", ".join(map(str, sorted(_statuses(entry)))) or "–"
    seen = ", ".join((place.name or "").lower().replace("_", " ") for place in _seen(entry))
    meaning = entry.meaning if isinstance(entry, PlainCode) else entry.meaning()
    return f"| `{code}` | {statuses} | {_tried_again(entry)} | {seen} | {meaning} |\n"


def _is_abstract(code: str) -> bool:
    """Return whether the code belongs to a class that only groups others."""
    return CODES[code] in (PermanentError, UnsuitableImage, UploadError)


def _sharing(kind: type[CarinaError]) -> Iterator[type[CarinaError]]:
    """Yield a class and the subclasses that share its code."""
    yield kind
    for subclass in kind.__subclasses__():
        if subclass.code == kind.code and "code" not in vars(subclass):
            yield from _sharing(subclass)


def _seen(entry: type[CarinaError] | PlainCode) -> Place:
    if isinstance(entry, PlainCode):
        return entry.places
    return reduce(or_, map(_places, _sharing(entry)))


def _statuses(entry: type[CarinaError] | PlainCode) -> set[int]:
    """Return the HTTP statuses of the answers with this code."""
    if isinstance(entry, PlainCode):
        return {entry.status} if entry.status else set()
    return {status_of(kind) for kind in _sharing(entry) if Place.REQUEST in _places(kind)}


def _tried_again(entry: type[CarinaError] | PlainCode) -> str:
    if isinstance(entry, PlainCode):
        if entry.is_final:
            return "no"
        if entry.places & (Place.DELIVERY | Place.HEALTH):
            return "by Carina"
        return "by you" if entry.status == 503 or entry.places & _RETRIED else "after a change"
    if issubclass(entry, PermanentError):
        return "no"
    if issubclass(entry, TransientError):
        return "by Carina" if entry.counts else "by Carina, without limit"
    if issubclass(entry, RequestError):
        return "by you" if entry in _TEMPORARY or entry.retry_after_s is not None else "after a change"
    return "by you" if issubclass(entry, UploadError) else "after a change"


def _places(entry: type[CarinaError]) -> Place:
    if "places" in vars(entry):
        return entry.places
    names = [name for name in _PLACES if f"{entry.__module__}.".startswith(f"{name}.")]
    return _PLACES[max(names, key=len)] if names else entry.places


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
