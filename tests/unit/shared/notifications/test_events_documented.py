"""`docs/usage.md` names every event that a webhook can receive."""

import re

from shared.vocabulary.webhook_events import WebhookEvent
from tests.requirements import REPOSITORY


def test_the_page_names_every_event() -> None:
    _, _, section = (REPOSITORY / "docs" / "usage.md").read_text().partition("## Webhooks")
    paragraph = section.strip().partition("\n\n")[0]
    assert set(re.findall(r"`([a-z]+\.[a-z]+)`", paragraph)) == set(WebhookEvent)
