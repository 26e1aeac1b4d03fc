"""DICOMweb as clients speak it: STOW-RS, QIDO-RS and WADO-RS against the API as it is served."""

import json
from collections.abc import Callable, Iterator
from io import BytesIO

import httpx
import numpy as np
import PIL.Image
import pydicom
import pytest
import sqlalchemy as sa
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from pydicom.dataset import Dataset

from shared.database import Database
from shared.object_store import ObjectStore, original_key
from shared.tables import AuditEvent, Image, Job, Study
from tests.integration.conftest import Api, Keys, Server, png
from tests.integration.workshop import Workshop
from tests.synthetic_dicom import make_dicom, make_film

STUDY, SERIES = "1.2.3", "1.2.3.1"


def film(number: int, **elements: object) -> bytes:
    """A film that no other number makes."""
    named = {"SeriesInstanceUID": SERIES, "SOPInstanceUID": f"1.2.3.1.{number}", "InstanceNumber": number}
    named |= {"Modality": "DX", "PatientID": "secret-id", "StudyDate": "20260102", "StudyDescription": "Thorax"}
    return make_dicom(make_film() // np.uint16(number), **named | elements)


@pytest.fixture
def client(server: Server, keys: Keys) -> Iterator[DICOMwebClient]:
    """The package that research groups use, with a key as HTTP Basic's password."""
    session = create_session_from_user_pass("carina", keys.both)
    yield DICOMwebClient(f"{server.url}/dicom-web", session=session)
    session.close()


def test_a_client_stores_finds_and_retrieves(client: DICOMwebClient, server: Server, database: Database) -> None:
    files = [film(1), film(2), film(3, StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.4.1")]
    answer = client.store_instances([pydicom.dcmread(BytesIO(file)) for file in files])
    assert "FailedSOPSequence" not in answer
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
        "1.2.3.1.1",
        "1.2.3.1.2",
        "1.2.3.1.3",
    ]
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 3

    studies = [Dataset.from_json(found) for found in client.search_for_studies()]
    assert [(study.StudyInstanceUID, study.NumberOfStudyRelatedInstances) for study in studies] == [
        ("1.2.4", 1),
        (STUDY, 2),
    ]
    assert (str(studies[1].PatientName), studies[1].PatientID, studies[1].StudyDate) == (
        "Secret^Patient",
        "secret-id",
        "20260102",
    )
    assert studies[1].ModalitiesInStudy == "DX"
    series = [Dataset.from_json(found) for found in client.search_for_series(STUDY)]
    assert [(each.SeriesInstanceUID, each.NumberOfSeriesRelatedInstances) for each in series] == [(SERIES, 2)]
    found = [Dataset.from_json(found) for found in client.search_for_instances(STUDY, SERIES)]
    assert [(each.SOPInstanceUID, each.Rows, each.InstanceNumber) for each in found] == [
        ("1.2.3.1.1", 96, 1),
        ("1.2.3.1.2", 96, 2),
    ]

    uids = (STUDY, SERIES, "1.2.3.1.2")
    instance = client.retrieve_instance(*uids)
    sent = pydicom.dcmread(BytesIO(files[1]))
    assert instance == sent
    assert instance.PixelData == sent.PixelData
    assert len(client.retrieve_study(STUDY)) == len(client.retrieve_series(STUDY, SERIES)) == 2
    metadata = Dataset.from_json(client.retrieve_instance_metadata(*uids), lambda *_: b"")
    assert metadata.PatientName == "Secret^Patient"
    assert len(client.retrieve_study_metadata(STUDY)) == 2
    (frame,) = client.retrieve_instance_frames(*uids, [1])
    assert frame == sent.PixelData
    uri = httpx.URL(client.retrieve_instance_metadata(*uids)["7FE00010"]["BulkDataURI"])
    # The client names the host without its port, of which no server can know then.
    assert client.retrieve_bulkdata(f"{server.url}{uri.path}") == [sent.PixelData]
