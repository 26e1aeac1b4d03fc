"""Suggestions for misspelled names and ids ("Did you mean …?"): every part of Carina asks here."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from uuid import UUID

from shared.errors import NotFound, Place, RequestError, plain_code

#: Maximum ids to list if several begin with the same digits, and maximum words to list if none is similar.
LISTED = 5
_WORDS_LISTED = 20
#: The fewest hexadecimal digits that identify an id, and the number of digits with its time and first random bits. If
#: two ids agree in the latter and differ later, one is treated as a wrong copy of the other.
MIN_DIGITS, OWN_DIGITS = 6, 16
_BEGINNING = re.compile(rf"[0-9a-f]{{{MIN_DIGITS},32}}")
_SUGGESTED_OF = re.compile(r"'([^']*)'")


#: Error codes by the kind of thing that a request names.
_UNKNOWN = {
    what: plain_code(f"unknown_{what}", f"There is no {what} with this name.", Place.REQUEST, status=422)
    for what in ("action", "class", "code")
}


class UnknownName(RequestError, shares_code=True):
    """There is nothing with this name."""

    status = 422
    #: Empty: the codes in `_UNKNOWN` have their own places.
    places = Place(0)

    def __init__(self, what: str, name: str, known: Iterable[str], *, parameter: str | None = None) -> None:
        """`what` is the kind of thing. For "class" the code is `unknown_class`."""
        words = sorted(set(known))
        listed = f" There are {', '.join(words)}." if 0 < len(words) <= _WORDS_LISTED else ""
        super().__init__(f"There is no {what} {name!r}.{did_you_mean(name, words) or listed}", parameter=parameter)
        self.code = _UNKNOWN[what]


class AmbiguousName(RequestError):
    """Several things have this name, or an id that begins with it. `candidates` lists them."""

    code = "ambiguous_name"
    status = 409

    def __init__(self, what: str, name: str, ids: Collection[UUID], *, parameter: str | None = None) -> None:
        shown = ", ".join(str(each) for each in sorted(ids)[:LISTED])
        more = " and others" if len(ids) > LISTED else ""
        said = f"More than one {what} is called {name!r} or has an id that begins with it: {shown}{more}."
        super().__init__(said, parameter=parameter)
        self.candidates = sorted(ids)[:LISTED]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the most similar known word, ignoring case; None if none is similar."""
    by_folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean X?" with the most similar known word; empty if none is similar."""
    near = nearest(word, known)
    return "" if near is None else f" Did you mean {near}?"


def suggest_choice(word: object, expected: str) -> str:
    """Return a suggestion for a word that is not in `expected`, a list written like `'a', 'b' or 'c'`."""
    return did_you_mean(str(word), _SUGGESTED_OF.findall(expected))


def digits_of(text: str) -> str | None:
    """Return the hexadecimal digits of an id or of its first digits; None if the text is neither."""
    digits = text.strip().lower().replace("-", "")
    return digits if _BEGINNING.fullmatch(digits) else None


def no_such(
    what: str, name: str, ids: Collection[UUID] = (), names: Iterable[str] = (), *, parameter: str | None = None
) -> NotFound:
    """Return the error for a missing thing. `ids` are similar ids, `names` all names that exist."""
    meant = f" Did you mean {next(iter(ids))}?" if len(ids) == 1 else did_you_mean(name, names)
    error = NotFound(f"There is no {what} {name!r}.{meant}", parameter=parameter)
    error.candidates = sorted(ids) if len(ids) == 1 else ()
    return error


def pick(what: str, name: str, known: Mapping[UUID, str], *, parameter: str | None = None) -> UUID:
    """Return the known id that `name` is, names, or begins.

    Raises `AmbiguousName` and `NotFound`.
    """
    digits = digits_of(name)
    whole = UUID(digits) if digits and len(digits) == 32 else None
    if whole is not None and whole in known:
        return whole
    of_name = [each for each, called in known.items() if called == name]
    found = of_name or [each for each in known if digits and each.hex.startswith(digits)]
    if len(found) == 1:
        return found[0]
    if found:
        raise AmbiguousName(what, name, found, parameter=parameter)
    alike = [each for each in known if digits and each.hex.startswith(digits[:OWN_DIGITS])]
    ids = alike if digits and len(digits) >= OWN_DIGITS else ()
    raise no_such(what, name, ids, known.values(), parameter=parameter)
