"""docker-compose.yml is sound as far as that can be told without a Docker engine."""

import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

from api.dicom.listener import GRACE_S
from deploy import digests
from deploy.cli import app
from deploy.document_settings import ROOT
from deploy.make_secrets import make_secrets
from deploy.needs import NEEDS, SECRETS
from shared.settings import Settings
from shared.vocabulary.states import SERVED
from trainer.task_process import STOP_S

COMPOSE = ROOT / "docker-compose.yml"
CPU = ROOT / "deploy" / "compose.cpu.yml"
OURS = {"api", "dicom-listener", *SERVED, "trainer", "beat", "migrate"}
ALL = OURS | {"postgres", "redis", "object-store"}
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
    assert set(services) == ALL
    assert set(NEEDS) == OURS


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
    assert command[1] == "/run/secrets/redis_conf", "which holds its password"


def test_no_secret_is_written_or_named_but_as_a_file(services: dict[str, Any], tmp_path: Path) -> None:
    files_of_secrets = load(COMPOSE)["secrets"]
    made = {f"${{SECRETS_FOLDER:-./secrets}}/{name}" for name in make_secrets(tmp_path / "secrets")}
    assert {secret["file"] for secret in files_of_secrets.values()} == made
    for name, service in services.items():
        text = yaml.dump(service)
        assert not re.search(r"\$\{\w*(?:PASSWORD|KEY|SECRET|TOKEN|URL)\w*", text.replace("$$", "")), name
        named = set(re.findall(r"/run/secrets/(\w+)", text))
        assert named == set(service["secrets"]), f"{name} is given what it reads, and no more"
        for variable, value in service.get("environment", {}).items():
            assert not (re.search(r"PASSWORD|KEY|SECRET|TOKEN|_URL", variable) and "@" in str(value)), variable
            assert variable.endswith("_FILE") or variable.removesuffix("_FILE") not in SECRETS


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_process_is_given_the_secrets_that_it_needs(name: str, services: dict[str, Any]) -> None:
    given = {word.removesuffix("_FILE") for word in services[name]["environment"] if word.endswith("_FILE")}
    optional = {"CARINA_S3_SESSION_TOKEN"}
    assert given == NEEDS[name] - optional


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_container_may_do_no_more_than_it_must(name: str, services: dict[str, Any]) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "ipc", "userns_mode", "devices", "volumes_from"} & set(service)
    assert set(service.get("cap_add", [])) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    if name in OURS or "user" in service:
        assert "cap_add" not in service
        assert service.get("user") not in ("root", "0", 0)
    assert 16 <= service["pids_limit"] <= 4096
    assert re.fullmatch(r"\d+[gm]", service["mem_limit"])
    for volume in service.get("volumes", []):
        assert re.fullmatch(r"[\w-]+:/[\w/.-]+", volume), "no folder of the host, such as Docker's own socket"


@pytest.mark.parametrize("name", sorted(ALL))
def test_temporary_files_are_in_memory_of_a_bounded_size(name: str, services: dict[str, Any]) -> None:
    folders = dict(line.split(":") for line in services[name]["tmpfs"])
    assert "/tmp" in folders
    for options in (set(value.split(",")) for value in folders.values()):
        assert {"nosuid", "nodev"} <= options
        assert any(re.fullmatch(r"size=\d+[gm]", option) for option in options)
        assert ("noexec" in options) == (name not in ON_A_GPU), "PyTorch alone compiles"


def test_each_server_is_in_a_network_of_those_that_use_it(services: dict[str, Any]) -> None:
    networks = load(COMPOSE)["networks"]
    inside = {"postgres": "database", "redis": "queue", "object-store": "objects"}
    for server, network in inside.items():
        assert services[server]["networks"] == [network]
        assert networks[network] == {"internal": True}
    by_secret = {"CARINA_DATABASE_URL": "database", "CARINA_REDIS_URL": "queue", "CARINA_S3_ACCESS_KEY_ID": "objects"}
    for name in OURS:
        wanted = {network for secret, network in by_secret.items() if secret in NEEDS[name]}
        assert set(services[name]["networks"]) & set(inside.values()) == wanted
    outside = {name: set(services[name]["networks"]) - set(inside.values()) for name in ALL}
    assert {name: found for name, found in outside.items() if found} == {
        "api": {"front"},
        "dicom-listener": {"front"},
        "notify": {"outside"},
    }
    assert {name for name in ALL if "ports" in services[name]} == {"api", "dicom-listener"}


@pytest.mark.parametrize("name", sorted(ALL - {"migrate"}))
def test_every_container_is_asked_whether_it_is_well(name: str, services: dict[str, Any]) -> None:
    dockerfile = services[name].get("build", {}).get("dockerfile")
    own = services[name].get("healthcheck", {}).get("test")
    assert own or "\nHEALTHCHECK " in (ROOT / dockerfile).read_text()


def test_only_what_clients_speak_to_is_published_and_only_on_this_machine(services: dict[str, Any]) -> None:
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "api": ["${API_PUBLISH:-127.0.0.1:8080}:8080"],
        "dicom-listener": ["${DICOM_PUBLISH:-127.0.0.1:11112}:11112"],
    }


def test_every_image_is_pinned(services: dict[str, Any]) -> None:
    for name, service in services.items():
        ours = r"[a-z/-]+:\d+\.\d[\w.-]*"
        theirs = rf"{ours}\$\{{[A-Z]+_DIGEST:-\}}"
        assert re.fullmatch(ours if name in OURS else theirs, service["image"])


def test_the_digest_of_every_image_of_others_can_be_pinned(services: dict[str, Any]) -> None:
    found = digests.images(COMPOSE.read_text())
    assert set(found) == {"POSTGRES_DIGEST", "REDIS_DIGEST", "SEAWEEDFS_DIGEST", "PYTHON_DIGEST"}
    for name in OURS:
        [[argument, image]] = services[name]["build"]["args"].items()
        assert image == f"{found['PYTHON_DIGEST']}${{PYTHON_DIGEST:-}}"
        dockerfile = (ROOT / services[name]["build"]["dockerfile"]).read_text()
        assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) == [f"${{{argument}}}"] * 2
        assert f"ARG {argument}={found['PYTHON_DIGEST']}\n" in dockerfile


def test_digests_are_looked_up_and_written_for_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a program in the place of Docker, as no registry can be counted on."""
    (program := tmp_path / "docker").write_text(
        "#!/bin/sh\n"
        'test "$*" = "buildx imagetools inspect --format {{.Manifest.Digest}} redis:8.6-alpine" || exit 1\n'
        f"echo sha256:{'ab' * 32}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    digest = digests.look_up("redis:8.6-alpine")
    before = "CARINA_BATCH_SIZE=2\nREDIS_DIGEST=@sha256:old\n"
    assert digests.write(before, {"REDIS_DIGEST": digest}) == f"CARINA_BATCH_SIZE=2\nREDIS_DIGEST=@{digest}\n"
    with pytest.raises(SystemExit, match="The digest of postgres:18 cannot be looked up"):
        digests.look_up("postgres:18")


def test_secrets_are_made_once_and_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert before["postgres_password"].strip() in before["database_url"]
    assert before["redis_password"].strip() in before["redis_url"]
    assert make_secrets(folder) == []
    (folder / "database_url").unlink()
    assert make_secrets(folder) == ["database_url"]
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    settings = {f"CARINA_{name.upper()}_FILE": str(folder / name) for name in before if "." not in name}
    assert Settings.from_env(settings).redis_url.get_secret_value() == before["redis_url"].strip()
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(PermissionError, match="a link"):
        make_secrets(tmp_path / "link")


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
