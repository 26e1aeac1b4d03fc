"""What somebody may have meant who named something that there is not: the one place that looks for it."""

import difflib
from collections.abc import Iterable

from shared.errors import RequestError

#: So many words at most are listed where none is near.
_LISTED = 20


class UnknownName(RequestError):
    """There is nothing of this name."""

    status = 422

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        """`what` is the kind of thing, as "class"; the code is `unknown_class` then."""
        words = sorted(set(known))
        listed = f" There are {', '.join(words)}." if 0 < len(words) <= _LISTED else ""
        super().__init__(f"There is no {what} {name!r}.{did_you_mean(name, words) or listed}")
        self.code = f"unknown_{what.replace(' ', '_')}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean X?" with the nearest known word, whatever its case; empty where none is near."""
    by_folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return f" Did you mean {by_folded[near[0]]}?" if near else ""
