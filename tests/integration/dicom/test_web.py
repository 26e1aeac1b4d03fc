"""DICOMweb as clients speak it: STOW-RS, QIDO-RS and WADO-RS against the API as it is served."""

import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from io import BytesIO

import httpx
import imagecodecs
import numpy as np
import PIL.Image
import pydicom
import pytest
import sqlalchemy as sa
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from pydicom.dataset import Dataset
from werkzeug.test import TestResponse

from shared.database import Database
from shared.object_store import ObjectStore, original_key
from shared.tables import AuditEvent, IdempotencyKey, Image, Job
from tests.integration.conftest import Api, Keys, Server, png
from tests.integration.dicomweb import SERIES, STUDY, Web, image, related
from tests.integration.http.test_uploads import answer_on
from tests.integration.workshop import Workshop
from tests.synthetic_dicom import make_dicom, make_image
from tests.waiting import DEADLINE_S

UNSUPPORTED = "unsupported_media_type"


@pytest.fixture
def client(server: Server, keys: Keys) -> Iterator[DICOMwebClient]:
    """The package that research groups use, with a key as HTTP Basic's password."""
    session = create_session_from_user_pass("carina", keys.both)
    yield DICOMwebClient(f"{server.url}/dicom-web", session=session)
    session.close()


def test_a_client_stores_finds_and_retrieves(client: DICOMwebClient, server: Server, database: Database) -> None:
    files = [image(1), image(2), image(3, StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.4.1")]
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


def count(database: Database, table: type) -> int:
    with database.begin() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def failures(answer: Dataset, sequence: str = "FailedSOPSequence") -> list[tuple[str | None, int, str]]:
    return [
        (item.get("ReferencedSOPInstanceUID"), item.FailureReason, item.private_block(0x0009, "CARINA")[0x01].value)
        for item in answer.get(sequence, [])
    ]


def test_each_instance_is_answered_on_its_own(web: Web, database: Database) -> None:
    odd = [
        image(2, Rows=None, Columns=None),
        image(3, NumberOfFrames=2),
        image(4, SeriesInstanceUID=""),
        image(5, syntax="1.2.840.10008.1.2.4.100", frame=b"video"),
    ]
    response = web.store(image(1), *odd, png(), b"", image(1)[:200])
    assert (response.status_code, response.content_type) == (202, "application/dicom+json")
    answer = Dataset.from_json(response.get_json())
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == ["1.2.3.1.1"]
    assert answer.RetrieveURL == "http://localhost/dicom-web/studies/1.2.3"
    assert answer.ReferencedSOPSequence[0].RetrieveURL.endswith("/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1")
    assert failures(answer) == [
        ("1.2.3.1.2", 0x0122, "not_an_image"),
        ("1.2.3.1.3", 0xC010, "multi_frame"),
        ("1.2.3.1.4", 0xA901, "missing_uid"),
        ("1.2.3.1.5", 0xC122, "unsupported_transfer_syntax"),
    ]
    assert failures(answer, "OtherFailuresSequence") == [
        (None, 0xC002, "unsupported_file_type"),
        (None, 0xC001, "empty_file"),
        (None, 0xC003, "malformed_dicom"),
    ]
    assert count(database, Image) == 1
    assert web.store(image(1)).status_code == 200  # sent again, it is stored all the same
    assert web.store(odd[0]).status_code == 409
    assert count(database, Job) == 1


def test_a_request_for_one_study_takes_no_other(web: Web) -> None:
    other = image(2, StudyInstanceUID="9.9")
    response = web.store(image(1), other, to="/studies/1.2.3")
    assert response.status_code == 202
    assert failures(Dataset.from_json(response.get_json())) == [("1.2.3.1.2", 0xA900, "study_uid_mismatch")]
    assert web.store(other, to="/studies/1.2.3").status_code == 409


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content_Type": "multipart/related; type=application/dicom; boundary=frontier"}, 200, None),
        ({"Content_Type": 'Multipart/Related; boundary="frontier"; type="application/dicom"'}, 200, None),
        (
            {"Content_Type": 'multipart/related; type="application/dicom+json"; boundary=frontier'},
            415,
            "unsupported_media_type",
        ),
        ({"Content_Type": "multipart/form-data; boundary=frontier"}, 415, "unsupported_media_type"),
        ({"Content_Type": 'multipart/related; type="application/dicom"'}, 415, "unsupported_media_type"),
        ({"Content_Type": 'multipart/related; type="application/dicom"; boundary=wall'}, 400, "malformed_upload"),
        ({"Accept": "application/dicom+xml"}, 406, "not_acceptable"),
        ({"Accept": "application/dicom+xml, application/json;q=0.5"}, 200, None),
    ],
)
def test_media_types_are_as_the_standard_says(web: Web, headers: dict[str, str], status: int, code: str | None) -> None:
    response = web.store(image(1), **headers)
    assert (response.status_code, response.get_json().get("code")) == (status, code)


def test_one_instance_needs_no_multipart(make_web: Callable[..., Web], keys: Keys) -> None:
    web = make_web(keys.both)
    send = {"headers": {"Authorization": f"Bearer {keys.both}", "Content-Type": "application/dicom"}}
    assert web._http.post("/dicom-web/studies", data=image(1), **send).status_code == 200
    assert web.store().get_json()["code"] == "no_instances"


def test_limits_are_those_of_every_upload(make_web: Callable[..., Web], keys: Keys) -> None:
    response = make_web(keys.both, max_files=2).store(image(1), image(2), image(3))
    assert (response.status_code, response.get_json()["limit"]) == (413, "max_files")
    response = make_web(keys.both, max_upload_bytes=20_000).store(image(1), image(2))
    assert (response.status_code, response.get_json()["limit"]) == (413, "max_upload_bytes")


def test_a_body_that_is_cut_short_leaves_nothing_of_the_unfinished_instance(
    server: Server, keys: Keys, database: Database
) -> None:
    body = related(image(1))
    middles = np.random.default_rng(1).integers(0, len(body), 8).tolist()
    for cut in [0, 1, *middles, *(len(body) - end for end in range(1, 18))]:
        with open_store(server, keys.both, len(body)) as connection:
            connection.sendall(body[:cut])
            connection.shutdown(socket.SHUT_WR)
            assert b'"upload_cut_short"' in answer_on(connection), cut
    assert count(database, Image) == 0
    whole = related(image(1), image(2))
    with open_store(server, keys.both, len(whole)) as connection:
        connection.sendall(whole[:-100])
        connection.shutdown(socket.SHUT_WR)
        assert b'"upload_cut_short"' in answer_on(connection)
    assert count(database, Image) == 1


def open_store(server: Server, key: str, length: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
    connection.sendall(
        b"POST /dicom-web/studies HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer %s\r\n" % key.encode()
        + b"Content-Type: multipart/related; type=application/dicom; boundary=frontier\r\n"
        + b"Content-Length: %d\r\n\r\n" % length
    )
    return connection


def uids_of(response: TestResponse, tag: str = "0020000D") -> list[str]:
    assert response.status_code == 200, response.get_data(as_text=True)
    return [found[tag]["Value"][0] for found in response.get_json()]


def test_searches_match_page_and_refuse_what_they_cannot_match(
    web: Web, keys: Keys, make_web: Callable[..., Web]
) -> None:
    for number in range(1, 6):
        uids = {"StudyInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.2.{number}.1"}
        web.store(image(number, **uids, Modality="CR" if number % 2 else "DX"))
    assert uids_of(web.get("/studies")) == ["1.2.5", "1.2.4", "1.2.3", "1.2.2", "1.2.1"]
    assert uids_of(web.get("/studies", limit=2, offset=1)) == ["1.2.4", "1.2.3"]
    assert uids_of(web.get("/studies", StudyInstanceUID="1.2.1,1.2.4")) == ["1.2.4", "1.2.1"]
    assert uids_of(web.get("/studies", **{"0020000D": "1.2.1\\1.2.4"})) == ["1.2.4", "1.2.1"]
    assert uids_of(web.get("/studies", ModalitiesInStudy="DX")) == ["1.2.4", "1.2.2"]
    assert uids_of(web.get("/studies", **{"00080061": "DX,CR", "limit": 1})) == ["1.2.5"]
    assert uids_of(web.get("/studies", PatientName="", StudyDate="*")) == uids_of(web.get("/studies"))
    assert uids_of(web.get("/series", Modality="DX"), "0020000E") == ["1.2.4.1", "1.2.2.1"]
    assert uids_of(web.get("/instances", ModalitiesInStudy="DX", limit=1), "00080018") == ["1.2.3.1.4"]
    assert uids_of(web.get("/instances", SOPInstanceUID="1.2.3.1.4"), "0020000D") == ["1.2.4"]
    assert uids_of(web.get("/studies/1.2.9/series")) == []
    assert web.get("/studies", StudyInstanceUID="9").get_json() == []
    for query in (
        {"PatientID": "secret-id"},
        {"patientid": "secret-id"},
        {"00100010": "Secret*"},
        {"StudyDate": "20260101-"},
        {"Modality": "D*"},
        {"ModalitiesInStudy": "D?"},
        {"00091001": "x"},
        {"RequestAttributesSequence.ScheduledProcedureStepID": "7"},
        {"00400275.00400009": "7"},
    ):
        response = web.get("/studies", **query)
        assert (response.status_code, response.get_json()["code"]) == (400, "attribute_not_searchable")
        assert "secret" not in response.get_data(as_text=True).lower()
    for true in ("true", "TRUE"):
        assert "299" in web.get("/studies", fuzzymatching=true).headers["Warning"]
    assert web.get("/studies", accept="application/dicom+xml").status_code == 406
    assert make_web(keys.stranger).get("/studies").get_json() == []
    more = web.get("/studies", includefield=["BodyPartExamined", "00091001", "Nonsense,00180015"], limit=1).get_json()[
        0
    ]
    assert more["00180015"] == {"vr": "CS"}


def test_the_rows_of_an_older_carina_are_completed_from_their_headers(web: Web, database: Database) -> None:
    web.store(image(1))
    with database.begin() as session:
        session.execute(sa.update(Image).values(series_instance_uid=None, sop_class_uid=None, modality=None))
    assert web.get("/studies").get_json()[0]["00080061"]["Value"] == ["DX"]
    assert uids_of(web.get("/studies/1.2.3/instances"), "00080018") == ["1.2.3.1.1"]


SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_native_frames_are_little_endian_whatever_was_sent(web: Web, syntax: str) -> None:
    web.store(image(1, syntax=syntax))
    path = "/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1"
    response = web.get(f"{path}/frames/1", "application/octet-stream")
    assert response.data == make_image().tobytes()
    assert web.get(f"{path}/frames/2").status_code == 404
    (metadata,) = web.get(f"{path}/metadata").get_json()
    assert metadata["00280010"]["Value"] == [96]


def test_a_compressed_frame_keeps_its_codec(web: Web) -> None:
    codestream = imagecodecs.jpegls_encode(make_image())
    whole = image(1, syntax="1.2.840.10008.1.2.4.80", frame=codestream)
    web.store(whole)
    path = "/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1"
    for accept in ("*/*", "multipart/related; type=image/jls", 'multipart/related; type="image/*"'):
        response = web.get(f"{path}/frames/1", accept)
        assert b"Content-Type: image/jls; transfer-syntax=1.2.840.10008.1.2.4.80" in response.data
        assert codestream in response.data
    octets = 'multipart/related; type="application/octet-stream"'
    assert web.get(f"{path}/frames/1", f"{octets}; transfer-syntax=*").status_code == 200
    for accept in (octets, "image/png", f"{octets}; transfer-syntax=1.2.840.10008.1.2.1"):
        assert web.get(f"{path}/frames/1", accept).get_json()["code"] == "not_acceptable"
    dicom = 'multipart/related; type="application/dicom"'
    assert whole in web.get(path, dicom).data
    assert web.get(path, "application/dicom").data == whole
    assert web.get(path, f"{dicom}; transfer-syntax=1.2.840.10008.1.2.1").status_code == 406
    assert web.get("/studies/1.2.3", "application/dicom").status_code == 406


def test_the_rendition_is_shown_as_png_or_jpeg(web: Web, workshop: Workshop) -> None:
    web.store(image(1))
    path = "/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1/rendered"
    assert web.get(path).get_json()["code"] == "not_ready"
    with workshop.preparing() as prepare:
        prepare.run()
    for accept, kind in (
        ("*/*", "PNG"),
        ("image/jpeg", "JPEG"),
        ("image/webp, image/jpeg;q=0.5, image/png;q=0.9", "PNG"),
    ):
        with PIL.Image.open(BytesIO(web.get(path, accept).data)) as picture:
            assert (picture.format, picture.mode) == (kind, "L")
    assert web.get(path, "image/gif").status_code == 406
    assert len(web.get(path, "image/jpeg", quality=1).data) < len(web.get(path, "image/jpeg", quality=95).data)


def test_an_object_that_is_corrupt_or_missing_is_never_given_as_whole(
    server: Server, keys: Keys, web: Web, store: ObjectStore
) -> None:
    small = image(1)
    large = make_dicom(make_image(800, 800), SOPInstanceUID="1.2.3.1.2", SeriesInstanceUID=SERIES)
    web.store(small, large)
    keys_of = [original_key(hashlib.sha256(original).hexdigest()) for original in (small, large)]
    for key, original in zip(keys_of, (small, large), strict=True):
        store.put(key, original[:-2] + b"xx")
    headers = {"Authorization": f"Bearer {keys.both}"}
    path = f"{server.url}/dicom-web/studies/1.2.3"
    for below in ("", "/frames/1"):
        instances = f"{path}/series/1.2.3.1/instances"
        response = httpx.get(f"{instances}/1.2.3.1.1{below}", headers=headers)
        assert (response.status_code, response.json()["code"]) == (503, "object_corrupt")
        large_answer = f"{instances}/1.2.3.1.2{below}"
        if below:  # a frame is answered once all of its file has been checked
            assert httpx.get(large_answer, headers=headers).json()["code"] == "object_corrupt"
            continue
        with pytest.raises(httpx.RemoteProtocolError):  # the answer was under way
            httpx.get(large_answer, headers=headers)
    store.delete(keys_of[0])
    response = httpx.get(path, headers=headers)
    assert (response.status_code, response.json()["code"]) == (503, "object_missing")
    assert uids_of(web.get("/studies")) == ["1.2.3"]


def test_what_is_shown_and_what_is_stored_is_recorded(web: Web, database: Database) -> None:
    web.store(image(1))
    path = "/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1"
    for shown in ("/studies", f"{path}/metadata", path, f"{path}/frames/1", f"{path}/bulkdata"):
        assert web.get(shown).status_code == 200
    with database.begin() as session:
        events = session.scalars(sa.select(AuditEvent).order_by(AuditEvent.id)).all()
        assert [event.action for event in events] == [
            "stow.store",
            "qido.search_studies",
            "wado.instance_metadata",
            "wado.retrieve_instance",
            "wado.frames",
            "wado.bulkdata",
        ]
        assert events[0].subject["stored"] == 1
        assert events[1].subject == {"study_ids": events[0].subject["study_ids"]}
        assert events[2].subject["instance_uid"] == "1.2.3.1.1"


def test_a_picture_and_a_file_without_uids_are_no_part_of_it(web: Web, api: Api) -> None:
    api.send(("image.png", png()), ("bare.dcm", make_dicom(make_image())))
    assert web.get("/studies").get_json() == []
    assert web.get("/studies/1.2.3").status_code == 404


def test_a_study_is_streamed_in_constant_memory(server: Server, keys: Keys, web: Web) -> None:
    """Forty images of 8 MB."""
    side = np.random.default_rng(0).integers(0, 4096, (2000, 2000), np.uint16)
    for number in range(1, 41):
        web.store(
            make_dicom(side ^ np.uint16(number), SeriesInstanceUID=SERIES, SOPInstanceUID=f"1.2.3.{number}", bits=12)
        )
    worker, total, peak = server.worker, 0, 0
    httpx.get(f"{server.url}/readyz")
    before = worker.memory_info().rss
    with httpx.stream(
        "GET", f"{server.url}/dicom-web/studies/1.2.3", headers={"Authorization": f"Bearer {keys.read}"}
    ) as answer:
        for chunk in answer.iter_raw(1024**2):
            total += len(chunk)
            peak = max(peak, worker.memory_info().rss)
    assert total > 40 * side.nbytes
    assert peak - before < 64_000_000


def test_what_is_de_identified_is_answered_by_the_uids_that_were_sent(make_web: Callable[..., Web], keys: Keys) -> None:
    web = make_web(keys.both, deidentify="basic")
    answer = Dataset.from_json(web.store(image(1), to="/studies/1.2.3").get_json())
    (stored,) = answer.ReferencedSOPSequence
    assert stored.ReferencedSOPInstanceUID == "1.2.3.1.1"
    assert "1.2.3.1.1" not in stored.RetrieveURL
    (metadata,) = web.get(stored.RetrieveURL.partition("/dicom-web")[2] + "/metadata").get_json()
    assert "secret" not in json.dumps(metadata).lower()


def test_uids_that_were_sent_are_not_kept_where_originals_are_de_identified(
    make_web: Callable[..., Web], keys: Keys, database: Database
) -> None:
    web = make_web(keys.both, deidentify="basic")
    answers = [web.store(image(1), Idempotency_Key="a-key") for _ in range(2)]
    assert answers[0].get_json() == answers[1].get_json()
    assert "Idempotency-Replayed" not in answers[1].headers
    with database.begin() as session:
        assert session.scalars(sa.select(IdempotencyKey.body)).all() == []
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 1
