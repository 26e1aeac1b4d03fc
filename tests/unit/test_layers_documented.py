"""`docs/architecture.md` shows the layers that import-linter checks."""

import tomllib

from tests.requirements import REPOSITORY

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()


def test_the_layers_inside_the_rooms_are_those_that_lint_checks() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {
        contract["name"]: "\n".join(contract["layers"]).replace("api.", "")
        for contract in contracts
        if contract["type"] == "layers" and "deploy" not in contract["layers"]
    }
    assert layers
    assert [name for name, block in layers.items() if f"```text\n{block}\n```" not in PAGE] == []
