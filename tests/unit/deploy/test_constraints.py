"""Every direct dependency is pinned to a version that its range allows, for whoever wants what was tested."""

import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.document_settings import ROOT


def test_every_dependency_has_a_tested_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [Requirement(text) for texts in project["optional-dependencies"].values() for text in texts]
    wanted = [*map(Requirement, project["dependencies"]), *extras]
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in pinned.items()}
    for requirement in wanted:
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement
