"""Writes all settings to their documents, from their one definition: `python -m deploy.document_settings`.

`.env.example` is written completely; in `docs/settings.md`, only the table between its markers.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shared.settings import ClientSettings, Settings

ROOT = Path(__file__).parents[1]

_TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- /settings -->)", re.DOTALL)

_HEAD = """\
# docker-compose.yml reads `.env`; copy this file there. Its secrets are files in this folder: `make secrets`.
#SECRETS_FOLDER=./secrets

# Where docker-compose.yml publishes the API.
#API_PUBLISH=127.0.0.1:8080

# Every setting of Carina with its default. docker-compose.yml and `carina up` set the required ones. A secret can be
# given as a file, which a variable with `_FILE` at its end names: `CARINA_DATABASE_URL_FILE`.
"""


class Documented(NamedTuple):
    """One setting as documented for operators."""

    variable: str
    #: None if the setting is required.
    default: str | None
    meaning: str


def settings() -> Iterator[Documented]:
    """Yield all settings in the order of their definition."""
    for name, field in (Settings.model_fields | ClientSettings.model_fields).items():
        default = None if field.is_required() else str(field.default)
        yield Documented(f"CARINA_{name.upper()}", default, field.description or "")


def env_example() -> str:
    """Return the text of `.env.example`."""
    return _HEAD + "".join(
        f"\n# {meaning}{' Required.' if default is None else ''}\n#{variable}={default or ''}\n"
        for variable, default, meaning in settings()
    )


def page(text: str) -> str:
    """Return the text of `docs/settings.md` with the current table. Raises ValueError if the markers are missing."""
    rows = "".join(
        f"| `{variable}` | {'required' if default is None else f'`{default}`'} | {meaning} |\n"
        for variable, default, meaning in settings()
    )
    table = f"\n| variable | default | meaning |\n|---|---|---|\n{rows}\n"
    written, count = _TABLE.subn(lambda _: table, text)
    if count != 1:
        raise ValueError("docs/settings.md needs one <!-- settings --> ... <!-- /settings --> block.")
    return written


def main() -> None:
    """Write both files."""
    (ROOT / ".env.example").write_text(env_example())
    path = ROOT / "docs" / "settings.md"
    path.write_text(page(path.read_text()))


if __name__ == "__main__":
    main()
