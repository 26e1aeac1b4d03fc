"""Error codes are unique, and `docs/codes.md` lists every one; `python -m deploy.document_codes` renews it."""

import ast
import re
from collections.abc import Iterator

import pytest

from deploy.document_codes import PAGE, load_all, page
from shared.errors import CODES, NotFound, PermanentError, Place, PlainCode, RequestError, plain_code
from tests.requirements import REPOSITORY


def test_the_page_lists_every_code() -> None:
    assert PAGE.read_text() == page()
    listed = re.findall(r"^\| `([a-z_]+)` \|", page(), re.MULTILINE)
    assert len(set(listed)) == len(listed) > 150


def test_every_code_has_a_meaning_in_sentences() -> None:
    load_all()
    meanings = {
        code: entry.meaning if isinstance(entry, PlainCode) else entry.meaning() for code, entry in CODES.items()
    }
    assert [code for code, meaning in meanings.items() if not re.fullmatch(r"[A-Z`].*\.", meaning)] == []
    assert [code for code in meanings if not re.fullmatch(r"[a-z][a-z_]*[a-z]", code)] == []


def test_a_code_cannot_be_taken_twice() -> None:
    with pytest.raises(TypeError, match=r"not_found is taken by shared\.errors\.requests\.NotFound"):
        type("Lost", (PermanentError,), {"code": "not_found"})
    with pytest.raises(TypeError, match="not_found is taken"):
        plain_code("not_found", "There is nothing here.", Place.JOB)
    assert CODES["not_found"] is NotFound


def test_a_class_without_a_code_of_its_own_has_to_say_that_it_shares_one() -> None:
    with pytest.raises(TypeError, match="shares_code=True"):
        type("Lost", (NotFound,), {})
    with pytest.raises(TypeError, match="shares_code=True"):

        class Both(RequestError, shares_code=True):
            code = "never_registered"

    class Lost(NotFound, shares_code=True):
        """There is no such thing here."""

    assert (Lost().code, Lost().detail) == ("not_found", "There is no such thing here.")
    assert "never_registered" not in CODES


def _literal_codes() -> Iterator[tuple[str, str]]:
    """Yield each string that the product passes as a `code`, with its file."""
    for room in ("api", "shared", "workers", "trainer", "deploy"):
        for path in (REPOSITORY / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                given = node.value if isinstance(node, ast.keyword) and node.arg == "code" else None
                if isinstance(node, ast.Dict):
                    keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
                    given = node.values[keys.index("code")] if "code" in keys else None
                if isinstance(given, ast.Constant) and isinstance(given.value, str):
                    yield given.value, str(path)


def test_no_code_is_used_without_being_registered() -> None:
    load_all()
    assert [found for found in _literal_codes() if found[0] not in CODES] == []
