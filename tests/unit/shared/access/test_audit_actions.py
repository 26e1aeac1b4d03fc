"""The actions that can be asked for are those that the source records."""

import re

from shared.access.audit import OFF_API
from tests.requirements import REPOSITORY


def test_the_actions_outside_the_api_are_those_that_are_recorded() -> None:
    sources = [path.read_text() for room in ("api", "deploy", "shared") for path in (REPOSITORY / room).rglob("*.py")]
    recorded = re.compile(r'(?:note\(session, |action=)"([a-z]+(?:\.[a-z]+)?)"')
    assert {action for source in sources for action in recorded.findall(source)} == OFF_API
