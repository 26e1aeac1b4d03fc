"""A hospital's own certificate authority is trusted by one setting, whatever speaks TLS."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import httpx
import pytest

from api.client import ApiUnavailable, Carina
from deploy.stack.errors import StackError
from deploy.stack.folder import Folder
from deploy.stack.services import plan
from shared.errors import ObjectStoreUnavailable
from shared.network.tls import VARIABLES, CaBundleUnusable, make_context
from shared.object_store import ObjectStore
from shared.settings import Settings
from tests.certificates import Authority
from tests.http_proxy import Proxy
from tests.integration.conftest import Keys, Server
from tests.requirements import REPOSITORY
from tests.waiting import DEADLINE_S


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tls_store(settings: Settings, authority: Authority, no_variables: None) -> Iterator[Settings]:
    """This test's object store, behind TLS with a certificate of the private authority."""
    port = urlsplit(settings.s3_endpoint_url).port
    assert port is not None
    with Proxy(port, authority.sign().server_context()).serving() as proxy:
        yield settings.model_copy(update={"s3_endpoint_url": proxy.url})


def test_the_object_store_is_trusted_by_the_setting(tls_store: Settings, authority: Authority) -> None:
    with pytest.raises(ObjectStoreUnavailable):
        ObjectStore(tls_store).ping()
    ObjectStore(tls_store.model_copy(update={"ca_bundle": str(authority.certificate)})).ping()


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_standard_variables_are_honoured_by_everything(
    variable: str, tls_store: Settings, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(authority.certificate))
    ObjectStore(tls_store).ping()
    httpx.get(tls_store.s3_endpoint_url, verify=make_context(tls_store.ca_bundle), trust_env=False)


def test_the_setting_goes_before_the_variables(
    tls_store: Settings, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    ObjectStore(tls_store.model_copy(update={"ca_bundle": str(authority.certificate)})).ping()


def test_the_stack_reaches_a_store_behind_tls(
    tls_store: Settings, environ: dict[str, str], authority: Authority, tmp_path: Path
) -> None:
    def wait(**more: str) -> None:
        folder = Folder(tmp_path / "data")
        folder.make()
        there = environ | {"CARINA_S3_ENDPOINT_URL": tls_store.s3_endpoint_url} | more
        planned = plan(folder, there, lambda _: None, was_killed=False)
        [store] = [server for server in planned.theirs if server.name == "s3"]
        asyncio.run(store.wait(lambda _: None))

    with pytest.raises(StackError, match=r"certificate of .* cannot be verified"):
        wait()
    wait(CARINA_CA_BUNDLE=str(authority.certificate))


def test_the_client_and_the_command_line_trust_it(
    server: Server, keys: Keys, authority: Authority, no_variables: None
) -> None:
    with Proxy(server.port, authority.sign().server_context()).serving() as proxy:
        with Carina(proxy.url, keys.both, retry_for_s=0) as client, pytest.raises(ApiUnavailable):
            client.models()
        with Carina(proxy.url, keys.both, ca_bundle=str(authority.certificate)) as client:
            assert client.submissions() == []
        variables = {"CARINA_API_URL": proxy.url, "CARINA_API_KEY": keys.both}
        variables["CARINA_CA_BUNDLE"] = str(authority.certificate)
        said = run(variables, "status")
        assert said.returncode == 0, said.stderr


def test_a_file_that_is_missing_or_broken_is_named_at_the_start(tmp_path: Path) -> None:
    missing, broken = tmp_path / "missing.pem", tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    for path, reason in (
        (missing, "No such file or directory"),
        (broken, "it holds no certificate in PEM format"),
        (tmp_path, "Is a directory"),
    ):
        for variable in VARIABLES:
            said = run({variable: str(path), "CARINA_API_KEY": "carina_x_y"}, "status")
            assert said.returncode == 2, said.stderr
            assert f"{variable} names {path}, which cannot be used: {reason}." in said.stderr.replace("\n", " ")
            assert "Traceback" not in said.stderr


def test_a_client_says_so_too(tmp_path: Path) -> None:
    with pytest.raises(CaBundleUnusable, match="No such file"):
        Carina("https://127.0.0.1:1", "key", ca_bundle=str(tmp_path / "missing.pem"))


def run(variables: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with nothing but these variables."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "PYTHONPATH": str(REPOSITORY)} | variables
    command = [sys.executable, "-m", "deploy.cli", *arguments]
    return subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
