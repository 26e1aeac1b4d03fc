"""The roots of the tree of errors, and the list of all codes.

A *permanent* error says that the same input will fail again: the job is `rejected` under the error's stable `code`.
A *transient* error says that trying again may help: the job goes back to its stage with backoff. A *request* error is
an answer to an HTTP client. Errors of botocore, SQLAlchemy, pydicom and redis become one of these in their adapter.

A class takes its code when it is defined. A second class with the same code is a `TypeError`, so codes are unique.
The first paragraph of a class's docstring is the default message and the entry in `docs/codes.md`.
"""

from dataclasses import dataclass
from enum import Flag, auto
from typing import ClassVar, Final


class Place(Flag):
    """Where users see a code."""

    #: The answer to a request.
    REQUEST = auto()
    #: A file of a request, a submission or a DICOM association.
    FILE = auto()
    JOB = auto()
    #: A dataset import, a training, an evaluation or a gate decision.
    TASK = auto()
    #: A delivery of a webhook.
    DELIVERY = auto()
    #: `/readyz` and `carina doctor`.
    HEALTH = auto()
    #: The output of a process that does not start.
    START = auto()
    COMMAND_LINE = auto()
    PYTHON_CLIENT = auto()


@dataclass(frozen=True)
class PlainCode:
    """A code that no exception carries."""

    code: str
    #: What it means and what to do, in sentences.
    meaning: str
    places: Place
    #: Of an HTTP answer.
    status: int | None = None
    #: Whether trying again is pointless.
    is_final: bool = False


#: Every code of the modules that are loaded, with the class or the entry that has taken it.
CODES: Final[dict[str, "type[CarinaError] | PlainCode"]] = {}


def plain_code(code: str, meaning: str, places: Place, *, status: int | None = None, is_final: bool = False) -> str:
    """Register a code that no exception carries, and return it; raise `TypeError` if it is taken."""
    _register(code, PlainCode(code, meaning, places, status, is_final))
    return code


class CarinaError(Exception):
    """Carina failed in an unexpected way. Look for `request_failed` or `request_crashed` in the log."""

    #: Stable, snake_case; part of the API. Never reuse a code for another meaning.
    code = "internal_error"
    #: Where users see the code, unless the package of a subclass says so (see `deploy.document_codes`).
    places: ClassVar[Place] = Place.REQUEST | Place.COMMAND_LINE

    def __init_subclass__(cls, *, shares_code: bool = False) -> None:
        """Register the class's code. A class that reports its base's code on purpose says `shares_code=True`."""
        super().__init_subclass__()
        if shares_code == ("code" in vars(cls)):
            raise TypeError(f"{cls.__name__} needs either a code of its own or `shares_code=True`.")
        if not shares_code:
            _register(cls.code, cls)

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.meaning())

    @classmethod
    def meaning(cls) -> str:
        """Return the first paragraph of the docstring, on one line."""
        return " ".join((cls.__doc__ or cls.code).partition("\n\n")[0].split())

    @property
    def detail(self) -> str:
        """One sentence for an operator; never holds a patient's data or a file's name."""
        return str(self)

    @property
    def public_detail(self) -> str:
        """One sentence for clients, which does not reveal the servers and files behind the API."""
        return self.detail


def _register(code: str, entry: "type[CarinaError] | PlainCode") -> None:
    """Enter a code. A module that is loaded twice defines the same class again, which is not a duplicate."""
    known = CODES.setdefault(code, entry)
    if known != entry and _origin(known) != _origin(entry):
        raise TypeError(f"The code {code} is taken by {_origin(known)}; {_origin(entry)} needs another one.")
    CODES[code] = entry


def _origin(entry: "type[CarinaError] | PlainCode") -> str:
    return entry.meaning if isinstance(entry, PlainCode) else f"{entry.__module__}.{entry.__qualname__}"


_register(CarinaError.code, CarinaError)


class PermanentError(CarinaError):
    """The file cannot be processed. Sending it again will fail in the same way."""

    code = "unfit_input"
    places = Place.FILE | Place.JOB


class UploadError(CarinaError):
    """The file that arrived is not the announced file. Send it again."""

    code = "bad_upload"
    places = Place.FILE


class TransientError(CarinaError):
    """Something that the work needs is unavailable at the moment. Carina tries again."""

    code = "temporarily_unavailable"
    places = Place.JOB | Place.FILE | Place.TASK | Place.REQUEST
    #: Whether the try uses up one of the job's attempts; an outage of a server does not.
    counts = True


class RequestError(CarinaError):
    """The server cannot answer this request. Change the request and send it again."""

    code = "bad_request"
    places = Place.REQUEST
    status = 400
    #: After how many seconds it may be sent again; None: not as it is.
    retry_after_s: int | None = None
    #: The parameter at fault, such as `gate.least_gain`, so that a form can show the error beside its field.
    parameter: str | None = None

    def __init__(self, detail: str | None = None, *, parameter: str | None = None) -> None:
        super().__init__(detail)
        self.parameter = parameter or self.parameter
