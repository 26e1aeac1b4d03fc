"""docker-compose.yml is sound as far as that can be told without a Docker engine."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

from api.dicom_listener import GRACE_S
from deploy.cli import app
from deploy.document_settings import ROOT, env_example
from trainer.agent import STOP_S

COMPOSE = ROOT / "docker-compose.yml"
CPU = ROOT / "deploy" / "compose.cpu.yml"
OURS = {"api", "dicom-listener", "intake", "notify", "prepare", "detect", "trainer", "beat", "migrate"}
ON_A_GPU = ("detect", "trainer")


class ComposeLoader(yaml.SafeLoader):
    """YAML with Compose's `!reset`, which takes what the file before it says away."""


ComposeLoader.add_constructor("!reset", lambda loader, node: {})


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.load(path.read_text(), ComposeLoader)
    return content


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(load(COMPOSE)["services"])


@pytest.mark.parametrize("path", [COMPOSE, CPU], ids=lambda path: path.name)
def test_follows_the_compose_specification(path: Path) -> None:
    schema = files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    jsonschema.validate(load(path), json.loads(schema))


def test_there_is_a_service_for_every_part(services: dict[str, Any]) -> None:
    assert set(services) == OURS | {"postgres", "redis", "object-store"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_runs_a_command_that_carina_has(name: str, services: dict[str, Any]) -> None:
    program, *words = services[name]["command"]
    assert program == "carina"
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    # Parses what is left as a run would, and raises on anything that the command does not take.
    command.make_context(name, words)


@pytest.mark.parametrize("name", ON_A_GPU)
def test_what_needs_a_gpu_gets_one_and_may_be_scaled(name: str, services: dict[str, Any]) -> None:
    [device] = services[name]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert not {"container_name", "ports", "hostname"} & set(services[name])


def test_nothing_needs_a_gpu_under_the_override() -> None:
    without = {"environment": {"CARINA_DEVICE": "cpu"}, "deploy": {}}
    assert load(CPU)["services"] == dict.fromkeys(ON_A_GPU, without)


def test_a_training_may_write_its_checkpoint_before_it_is_stopped(services: dict[str, Any]) -> None:
    assert int(services["trainer"]["stop_grace_period"].removesuffix("s")) > STOP_S


def test_renditions_stay_where_the_trainers_user_may_write(services: dict[str, Any]) -> None:
    [volume] = services["trainer"]["volumes"]
    folder = volume.split(":")[1]
    dockerfile = (ROOT / services["trainer"]["build"]["dockerfile"]).read_text()
    assert f"CARINA_TRAINER_CACHE_FOLDER={folder}" in dockerfile
    assert f"--owner=carina {folder}" in dockerfile


def test_redis_keeps_what_it_took(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert "--requirepass" in command


def test_no_secret_has_a_default() -> None:
    text = COMPOSE.read_text()
    secrets = set(re.findall(r"\$\{(\w*(?:PASSWORD|KEY)\w*)", text))
    required = set(re.findall(r"\$\{(\w+):\?[^}]+\}", text))
    assert secrets == required
    assert required == set(re.findall(r"^(\w+)=$", env_example(), re.MULTILINE))


def test_only_what_clients_speak_to_is_published_and_only_on_this_machine(services: dict[str, Any]) -> None:
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "api": ["${API_PUBLISH:-127.0.0.1:8080}:8080"],
        "dicom-listener": ["${DICOM_PUBLISH:-127.0.0.1:11112}:11112"],
    }


def test_every_image_is_pinned(services: dict[str, Any]) -> None:
    for service in services.values():
        assert re.fullmatch(r"[a-z/-]+:\d+\.\d[\w.-]*", service["image"])


def test_every_part_waits_for_the_migration(services: dict[str, Any]) -> None:
    for name in OURS - {"migrate"}:
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_only_the_api_is_asked_over_http_whether_it_is_well(services: dict[str, Any]) -> None:
    of_the_api = {name for name in OURS if services[name]["build"]["dockerfile"].endswith("api.Dockerfile")}
    for name in of_the_api - {"api"}:
        assert services[name]["healthcheck"], "the image's own health check asks the API"


def test_an_object_that_is_being_stored_may_be_answered(services: dict[str, Any]) -> None:
    assert services["dicom-listener"]["profiles"] == ["dicom"]
    assert int(services["dicom-listener"]["stop_grace_period"].removesuffix("s")) > GRACE_S


@pytest.mark.parametrize("name", ["postgres", "redis", "object-store"])
def test_every_server_keeps_its_data_and_is_watched(name: str, services: dict[str, Any]) -> None:
    assert services[name]["healthcheck"]["test"]
    [volume] = services[name]["volumes"]
    assert volume.split(":")[0] in load(COMPOSE)["volumes"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_image_of_ours_is_built_from_here_and_runs_unprivileged(name: str, services: dict[str, Any]) -> None:
    dockerfile = (ROOT / services[name]["build"]["dockerfile"]).read_text()
    assert re.search(r"^USER [1-9]\d*$", dockerfile, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", dockerfile, re.MULTILINE)
    assert services[name]["init"] is True
