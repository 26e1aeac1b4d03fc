"""Suggestions for misspelled names and ids ("Did you mean …?"): every part of Carina asks here."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from uuid import UUID

from shared.errors import NotFound, Place, RequestError, plain_code

#: So many words at most are listed where none is near, and so many ids where several begin alike.
LISTED = 5
_WORDS_LISTED = 20
#: Hexadecimal digits of an id's beginning: the fewest that stand for it, and those of its time and first random bits.
#: Ids that agree in the latter and differ behind are taken for one that was copied wrongly.
LEAST_DIGITS, OWN_DIGITS = 6, 16
_BEGINNING = re.compile(rf"[0-9a-f]{{{LEAST_DIGITS},32}}")
_SUGGESTED_OF = re.compile(r"'([^']*)'")


#: Codes by the kind of thing that a request names.
_UNKNOWN = {
    what: plain_code(f"unknown_{what}", f"There is no {what} with this name.", Place.REQUEST, status=422)
    for what in ("action", "class", "code")
}


class UnknownName(RequestError, shares_code=True):
    """There is nothing with this name."""

    status = 422
    #: The codes of `_UNKNOWN` have theirs.
    places = Place(0)

    def __init__(self, what: str, name: str, known: Iterable[str], *, parameter: str | None = None) -> None:
        """`what` is the kind of thing, as "class"; the code is `unknown_class` then."""
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
    """Return the known word that is most similar, whatever its case; None where none is near."""
    by_folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean X?" with the nearest known word; empty where none is near."""
    near = nearest(word, known)
    return "" if near is None else f" Did you mean {near}?"


def suggest_choice(word: object, expected: str) -> str:
    """Return what was meant by a word that is none of a list, which pydantic and Typer write as `'a', 'b' or 'c'`."""
    return did_you_mean(str(word), _SUGGESTED_OF.findall(expected))


def digits_of(text: str) -> str | None:
    """Return the hexadecimal digits of an id or its beginning; None where the text can be neither."""
    digits = text.strip().lower().replace("-", "")
    return digits if _BEGINNING.fullmatch(digits) else None


def no_such(
    what: str, name: str, ids: Collection[UUID] = (), names: Iterable[str] = (), *, parameter: str | None = None
) -> NotFound:
    """Return the error for something that there is not; `ids` are those that were meant, `names` all that there are."""
    meant = f" Did you mean {next(iter(ids))}?" if len(ids) == 1 else did_you_mean(name, names)
    error = NotFound(f"There is no {what} {name!r}.{meant}", parameter=parameter)
    error.candidates = sorted(ids) if len(ids) == 1 else ()
    return error


def pick(what: str, name: str, known: Mapping[UUID, str], *, parameter: str | None = None) -> UUID:
    """Return which of these ids is meant: by itself, its name, or its beginning.

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
