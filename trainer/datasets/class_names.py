"""The classes of a table: which id belongs to which name, if a table has only one of them, both, or contradictions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from shared.detector.card import Category
from shared.phantoms.figures import CLASS_NAMES
from trainer.datasets.annotations import MalformedAnnotations

NO_FINDING_ID, NO_FINDING = 14, "No finding"
#: Rows with another id or name of a class are left out if this many times as many rows agree; else the table is
#: rejected.
CLEAR_MAJORITY = 10

#: VinDr-CXR's own tables have names without ids. They have eight classes more than VinBigData, whose 14 ids are kept.
_VINDR_ONLY = (
    "Clavicle fracture",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Rib fracture",
)
NAME_OF_ID = {**dict(enumerate(CLASS_NAMES)), NO_FINDING_ID: NO_FINDING}
_NORMAL = frozenset({"no finding", "no findings", "nofinding", "normal"})


def key_of(name: str) -> str:
    """Return a key equal for all spellings of a class: lower case, with single spaces for `_` and white space."""
    return " ".join(name.replace("_", " ").casefold().split())


def is_normal(name: str) -> bool:
    """Return whether a class means that nothing was found."""
    return key_of(name) in _NORMAL


_ID_OF = {key_of(name): id_ for id_, name in NAME_OF_ID.items()}
_ID_OF |= {key_of(name): id_ for id_, name in enumerate(_VINDR_ONLY, start=NO_FINDING_ID + 1)}


def settle(named: Iterable[tuple[int, str, int | None]]) -> dict[str, Category]:
    """Return the class of each name's key, from the line, the name and the id of all rows.

    A name gets the id that most of its rows have, unless this id belongs to another name; the few rows with another id
    contradict the table. Raises `MalformedAnnotations` if they are not few. A name without an id gets the id of
    VinBigData or VinDr-CXR, otherwise the next free id, in alphabetical order.
    """
    spellings: dict[str, str] = {}
    votes: Counter[tuple[str, int]] = Counter()
    lines: dict[tuple[str, int], int] = {}
    for line, name, class_id in named:
        key = key_of(name)
        spellings.setdefault(key, name)
        if class_id is not None:
            votes[key, class_id] += 1
            lines.setdefault((key, class_id), line)
    ids: dict[str, int] = {}
    key_of_id: dict[int, str] = {}
    for (key, class_id), count in votes.most_common():
        rivals = [(key_of_id[class_id], class_id)] if class_id in key_of_id else []
        rivals += [(key, ids[key])] if key in ids else []
        for rival in rivals:
            if votes[rival] < CLEAR_MAJORITY * count:
                raise _contradiction((key, class_id), rival, lines, spellings)
        if not rivals:
            ids[key] = class_id
            key_of_id[class_id] = key
    _number(sorted(spellings.keys() - {key for key, _ in votes}), ids)
    return {key: Category(id=class_id, name=spellings[key]) for key, class_id in ids.items()}


def _contradiction(
    odd: tuple[str, int], rival: tuple[str, int], lines: Mapping[tuple[str, int], int], spellings: Mapping[str, str]
) -> MalformedAnnotations:
    where = "further up" if lines[rival] < lines[odd] else "further down"
    if rival[1] == odd[1]:
        why = f"class {odd[1]} is called {spellings[rival[0]]!r} {where} and {spellings[odd[0]]!r} here"
    else:
        why = f"{spellings[odd[0]]!r} is class {rival[1]} {where} and {odd[1]} here; two classes have the same name"
    return MalformedAnnotations(f"Line {lines[odd]}: {why}. Correct class_id and class_name.")


def _number(keys: Sequence[str], ids: dict[str, int]) -> None:
    """Assign ids to names without one."""
    for key in keys:
        known = _ID_OF.get(key)
        if known is not None and known not in ids.values():
            ids[key] = known
    following = max((*_ID_OF.values(), *ids.values())) + 1
    for key in keys:
        if key not in ids:
            ids[key] = following
            following += 1
