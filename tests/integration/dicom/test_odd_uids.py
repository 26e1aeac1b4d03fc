"""UIDs that the standard forbids: the same becomes of them on every way in, and in URLs and searches."""

from collections.abc import Iterator
from io import BytesIO

import pydicom
import pytest
import sqlalchemy as sa
from pynetdicom import AE
from pynetdicom.sop_class import DigitalXRayImageStorageForPresentation  # type: ignore[attr-defined]

from api.dicom.listener import Listener
from shared.database import Database
from shared.intake.archives import ArchiveKind
from shared.queue.hints import Hints
from shared.settings import Settings
from shared.tables import Image, Study
from tests.integration.conftest import Api, Keys
from tests.integration.submitting import Desk, make_archive
from tests.synthetic_dicom import make_dicom, make_image
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.usefixtures("senders_close")

LEFT_AS_IT_IS = ["1.02.003", "1.2.a-b_C", "0"]
REFUSED = ["9" * 65, "1.2/3", "1.2 3", ".."]


@pytest.fixture
def desk(settings: Settings, database: Database, hints: Hints) -> Desk:
    return Desk(settings, database, hints)


@pytest.fixture
def listener(settings: Settings, keys: Keys) -> Iterator[Listener]:
    changed = {"dicom_port": 0, "dicom_allowed_aes": "SENDER", "dicom_project": "ward"}
    with Listener(settings.model_copy(update=changed)) as running:
        yield running


def image(number: int, uid: str) -> bytes:
    uids = {"SeriesInstanceUID": "1.2.3.1", "SOPInstanceUID": f"1.2.3.1.{number}", "StudyInstanceUID": uid}
    return make_dicom(make_image(), InstanceNumber=number, **uids)


def c_store(listener: Listener, data: bytes) -> tuple[int, str | None]:
    ae = AE("SENDER")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = DEADLINE_S
    ae.add_requested_context(DigitalXRayImageStorageForPresentation)
    made = ae.associate("127.0.0.1", listener.port, ae_title="CARINA")
    try:
        answer = made.send_c_store(pydicom.dcmread(BytesIO(data)))
    finally:
        made.release()
    return answer.Status, answer.get("ErrorComment")


def stow(api: Api, data: bytes) -> str | None:
    """The code of an instance that is not stored."""
    headers = api._headers | {"Content-Type": "application/dicom"}
    answer = pydicom.Dataset.from_json(api._http.post("/dicom-web/studies", headers=headers, data=data).get_json())
    (failed, *_) = [*answer.get("FailedSOPSequence", []), *answer.get("OtherFailuresSequence", []), None]
    return failed and failed.private_block(0x0009, "CARINA")[0x01].value


@pytest.mark.parametrize("uid", [*LEFT_AS_IT_IS, *REFUSED])
def test_a_uid_becomes_the_same_on_every_way_in(
    uid: str, api: Api, desk: Desk, listener: Listener, database: Database
) -> None:
    code = "invalid_uid" if uid in REFUSED else None
    assert api.send(("a.dcm", image(1, uid))).get_json()["files"][0]["code"] == code
    assert stow(api, image(2, uid)) == code
    assert c_store(listener, image(3, uid)) == ((0xC000, code) if code else (0x0000, None))
    submission_id = desk.submit(image(4, uid), make_archive(ArchiveKind.ZIP, image(5, uid)))
    desk.receive()
    taken = f"rejected:{code}" if code else "accepted"
    assert desk.outcomes(submission_id) == [taken, "unpacked", taken]
    with database.begin() as session:
        studies = set(session.scalars(sa.select(Study.study_instance_uid)))
        assert session.scalar(sa.select(sa.func.count()).select_from(Image)) == (0 if code else 5)
    assert studies == (set() if code else {uid})


@pytest.mark.parametrize("uid", LEFT_AS_IT_IS)
def test_a_study_is_found_by_the_uid_that_it_has(uid: str, api: Api) -> None:
    api.send(("a.dcm", image(1, uid)))
    found = api.get("/dicom-web/studies", StudyInstanceUID=uid).get_json()
    assert [study["0020000D"]["Value"] for study in found] == [[uid]]
    assert api.get(f"/dicom-web/studies/{uid}/metadata").get_json()[0]["00080018"]["Value"] == ["1.2.3.1.1"]
    if "." in uid:
        assert [study["study_instance_uid"] for study in api.get("/v1/studies", q=uid).get_json()["studies"]] == [uid]
