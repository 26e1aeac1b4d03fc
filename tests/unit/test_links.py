"""Every link within the repository's Markdown pages leads to a file and, where it has one, to a heading."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import REPOSITORY

FOLDERS = ("docs", "api", "workers", "trainer", "shared", "deploy", "tests")
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(page for folder in FOLDERS for page in (REPOSITORY / folder).rglob("*.md"))]
)
#: `[text](target)` and `![text](target)`; the text may hold a picture or code.
LINK = re.compile(r"\]\(([^()\s]+)\)")
#: A file or folder of the repository, as code in a page.
NAMED_FILE = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`")
ELSEWHERE = re.compile(r"[a-z]+:")


def without_blocks(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings: lower case, no punctuation, hyphens for spaces, a number where one repeats."""
    seen: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#{1,6} (.+)$", without_blocks(text), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if anchor in seen else anchor)
        seen[anchor] = seen.get(anchor, 0) + 1
    return found


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield each link of a page to the repository: as it is written, the file, the anchor."""
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", without_blocks(page.read_text()))):
        if not ELSEWHERE.match(target):
            path, _, anchor = target.partition("#")
            yield target, (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = [
        target
        for target, path, anchor in links(page)
        if not path.exists() or (anchor and anchor not in anchors(path.read_text()))
    ]
    assert broken == []


def test_every_file_that_a_page_names_exists() -> None:
    """In `contributing.md` most of all: its lists are where a change goes."""
    named = {
        (page.name, path)
        for page in PAGES
        if page.name != "CHANGELOG.md"  # tells of earlier versions, too
        for path in NAMED_FILE.findall(without_blocks(page.read_text()))
    }
    assert len(named) > 20
    assert [(page, path) for page, path in sorted(named) if not (REPOSITORY / path).exists()] == []


def test_every_page_of_the_docs_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [path for _, path, _ in links(page) if path.suffix == ".md"]
    assert set((REPOSITORY / "docs").glob("*.md")) - reached == set()


def test_headings_become_the_anchors_that_github_makes() -> None:
    text = "# A & B: `carina up`, C's [D](d.md)\n## Again\n## Again\n```sh\n# no heading\n```\n"
    assert anchors(text) == {"a--b-carina-up-cs-d", "again", "again-1"}
