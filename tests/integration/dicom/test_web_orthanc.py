"""Debian's Orthanc with its DICOMweb plugin as our peer: it sends to us, searches here and retrieves from us."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from shared.database import Database
from shared.tables import Image
from tests.integration.conftest import Keys, Server
from tests.integration.dicomweb import STUDY, image
from tests.ports import free_port
from tests.requirements import needs
from tests.waiting import DEADLINE_S, wait_for

pytestmark = pytest.mark.needs("Orthanc", "libOrthancDicomWeb.so")


@pytest.fixture
def orthanc(server: Server, keys: Keys, tmp_path: Path) -> Iterator[httpx.Client]:
    """Orthanc's REST API; it knows us as `carina`."""
    port = free_port()
    config = {
        "StorageDirectory": str(tmp_path / "storage"),
        "IndexDirectory": str(tmp_path / "index"),
        "Plugins": [str(needs("libOrthancDicomWeb.so"))],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomWeb": {
            "Enable": True,
            "Servers": {"carina": {"Url": f"{server.url}/dicom-web/", "Username": "carina", "Password": keys.both}},
        },
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    with (
        (tmp_path / "orthanc.log").open("wb") as log,
        subprocess.Popen([needs("Orthanc"), str(tmp_path / "orthanc.json")], stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S) as client,
    ):
        try:

            def answers() -> bool:
                assert process.poll() is None, (tmp_path / "orthanc.log").read_text()
                with suppress(httpx.TransportError):
                    return client.get("/system").is_success
                return False

            wait_for(answers, (tmp_path / "orthanc.log").read_text)
            yield client
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def test_orthanc_sends_to_us_searches_here_and_retrieves(orthanc: httpx.Client, database: Database) -> None:
    files = [image(number) for number in (1, 2)]
    ids = [orthanc.post("/instances", content=file).raise_for_status().json()["ID"] for file in files]

    def call(service: str, **body: object):
        return orthanc.post(f"/dicom-web/servers/carina/{service}", json=body).raise_for_status().json()

    call("stow", Resources=ids, Synchronous=True)
    with database.begin() as session:
        stored = session.scalars(sa.select(Image.sha256)).all()
    kept = [orthanc.get(f"/instances/{id_}/file").content for id_ in ids]
    assert set(stored) == {hashlib.sha256(file).hexdigest() for file in kept}

    (study,) = call("qido", Uri="/studies", Arguments={"StudyInstanceUID": STUDY})
    assert study["0020000D"]["Value"] == STUDY
    assert study["00100010"]["Value"] == "Secret^Patient"
    refused = {"Uri": "/studies", "Arguments": {"PatientID": "secret-id"}}
    assert not orthanc.post("/dicom-web/servers/carina/qido", json=refused).is_success

    for service, body in [("retrieve", {"Resources": [{"Study": STUDY}]}), ("wado", {"Uri": f"/studies/{STUDY}"})]:
        for id_ in ids:
            orthanc.delete(f"/instances/{id_}").raise_for_status()
        assert call(service, **body, Synchronous=True)["ReceivedInstancesCount"] == "2"
        assert set(orthanc.get("/instances").json()) == set(ids)


def test_orthanc_is_told_what_we_do_not_take(orthanc: httpx.Client, database: Database) -> None:
    ids = []
    for number, colour in ((1, {}), (2, {"PhotometricInterpretation": "RGB"})):
        ids.append(orthanc.post("/instances", content=image(number, **colour)).raise_for_status().json()["ID"])
    refused = orthanc.post("/dicom-web/servers/carina/stow", json={"Resources": ids[1:], "Synchronous": True})
    assert not refused.is_success
    orthanc.post("/dicom-web/servers/carina/stow", json={"Resources": ids, "Synchronous": True})
    with database.begin() as session:
        assert session.scalars(sa.select(Image.sop_instance_uid)).all() == ["1.2.3.1.1"]
