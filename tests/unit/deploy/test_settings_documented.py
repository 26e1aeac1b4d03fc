"""Settings, `.env.example` and `docs/settings.md` are equal; `python -m deploy.document_settings` makes them do so."""

import pytest

from deploy.document_settings import ROOT, env_example, page, settings


def test_every_setting_says_what_it_means() -> None:
    assert [setting.variable for setting in settings() if not setting.meaning.endswith(".")] == []


def test_env_example_lists_every_setting() -> None:
    assert (ROOT / ".env.example").read_text() == env_example()


def test_the_page_lists_every_setting() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    assert page(text) == text


def test_a_page_without_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="settings"):
        page("# Settings\n")
