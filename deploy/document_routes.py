"""Writes `docs/routes.md`, the table of all routes, from the OpenAPI document: `python -m deploy.document_routes`."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from flask_openapi3.openapi import OpenAPI
from pydantic import SecretStr

from api.app import create_app
from shared.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "routes.md"

_HEAD = """\
# Routes

The API describes itself: `GET /docs` shows every route in the browser, with parameters, examples and error codes, and
`GET /openapi.json` is the same as an OpenAPI 3.1 document. A key with the scope `admin` has the scopes `read`, `submit`
and `train` too. [usage.md](usage.md) shows how to work with the routes, [codes.md](codes.md) lists the error codes.

This page is generated: `python -m deploy.document_routes`.
"""


def make_app() -> OpenAPI:
    """Return the API with placeholder settings; it connects to no server before a request needs one."""
    nowhere = SecretStr("postgresql://nobody@127.0.0.1:1/nothing")
    settings = Settings.model_validate(
        {
            "database_url": nowhere,
            "redis_url": "redis://127.0.0.1:1/0",
            "s3_endpoint_url": "http://127.0.0.1:1",
            "s3_access_key_id": "none",
            "s3_secret_access_key": "none",
        }
    )
    return create_app(settings)


def describe() -> dict[str, Any]:
    """Return the OpenAPI document."""
    document: dict[str, Any] = make_app().test_client().get("/openapi.json").get_json()
    return document


def page() -> str:
    """Return the text of `docs/routes.md`."""
    rows: defaultdict[str, list[str]] = defaultdict(list)
    for path, item in describe()["paths"].items():
        for method, operation in item.items():
            scope = f"`{operation['x-scope']}`" if "x-scope" in operation else "none"
            row = f"| `{method.upper()}` | `{path}` | {scope} | {operation['summary']} |\n"
            rows[operation["tags"][0]].append(row)
    tables = (
        f"\n## {tag}\n\n| Method | Path | Scope | Summary |\n|---|---|---|---|\n{''.join(rows[tag])}"
        for tag in sorted(rows, key=str.casefold)
    )
    return _HEAD + "".join(tables)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
