"""All studies of a patient are erased by the PatientID, which is not kept; models that learnt from them are listed."""

import hashlib
import json
from collections.abc import Callable

import sqlalchemy as sa

from shared.database import Database
from shared.deidentification.pseudonyms import Pseudonyms
from shared.erasure.patients import pseudonym, read_patients
from shared.object_store import ObjectStore, dataset_key
from shared.settings import Settings
from shared.tables import AuditEvent, Dataset, Image, Model, Project, Study, TrainingRun
from shared.vocabulary.states import TaskState
from tests.integration.conftest import Api, Keys, Server, png
from tests.integration.rows import add_dataset, add_model, home
from tests.integration.workshop import grey_image
from tests.synthetic_dicom import make_dicom


def send(api: Api, number: int, patient: str | None, study: int | None = None) -> str:
    """Send an image; return its study."""
    uids = {"SOPInstanceUID": f"1.2.{number}", "StudyInstanceUID": f"1.3.{study or number}"}
    file = make_dicom(grey_image(number), **uids, **({"PatientID": patient} if patient else {}))
    return api.send(("a.dcm", file)).get_json()["files"][0]["study_id"]


def erase(api: Api, patient: str) -> set[str]:
    answer = api.post("/v1/patients/erase", {"patient_id": patient})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return {study["study_id"] for study in answer.get_json()["studies"]}


def test_all_studies_of_a_patient_are_erased_and_nobody_elses(
    make_api: Callable[[Settings], Api],
    settings: Settings,
    api: Api,
    keys: Keys,
    database: Database,
    store: ObjectStore,
) -> None:
    pseudonymous = make_api(settings.model_copy(update={"deidentify": "basic"}))
    his = {send(api, 1, "4711"), send(api, 2, " 4711 "), send(api, 3, "4711", study=33), send(pseudonymous, 4, "4711")}
    others = {send(api, 5, "47110"), send(api, 6, None), api.send(("a.png", png())).get_json()["files"][0]["study_id"]}
    theirs = send(api.as_(keys.stranger), 7, "4711")
    with database.begin() as session:
        kept = session.scalars(sa.text("SELECT i::text FROM image AS i")).all()
    assert not any("4711" in row.split(",")[-1] for row in kept)

    admin = api.as_(keys.admin)
    assert api.post("/v1/patients/erase", {"patient_id": "4711"}).status_code == 403
    assert erase(admin, "4711") == his
    assert erase(admin, "4711") == set()
    with database.begin() as session:
        assert {str(study_id) for study_id in session.scalars(sa.select(Study.id))} == others | {theirs}
        assert len(list(store.keys("originals/"))) == 4
        subjects = [row.subject for row in session.scalars(sa.select(AuditEvent))]
        assert his <= {subject.get("study_id") for subject in subjects}
        assert "4711" not in json.dumps([subject.get("patient_id") for subject in subjects])


def test_the_pseudonym_is_that_of_deidentification() -> None:
    key = b"k" * 32
    assert pseudonym("4711", key) == Pseudonyms(key).identifier("PatientID", "4711")


def test_images_from_before_get_their_patient_from_their_headers(
    api: Api, keys: Keys, database: Database, store: ObjectStore
) -> None:
    his = {send(api, 1, "4711"), send(api, 2, "4711")}
    send(api, 3, None)
    with database.begin() as session:
        session.execute(sa.update(Image).values(patient=None))
    answer = api.as_(keys.admin).post("/v1/patients/erase", {"patient_id": "4711"})
    assert (answer.status_code, answer.get_json()["code"]) == (409, "patients_unread")
    assert (read_patients(database, store, 2), read_patients(database, store, 2)) == (2, 1)
    assert read_patients(database, store, 2) == 0
    assert erase(api.as_(keys.admin), "4711") == his


def test_models_that_have_learnt_from_erased_images_are_listed_and_recorded(
    api: Api, keys: Keys, database: Database, store: ObjectStore
) -> None:
    file = make_dicom(grey_image(1), PatientID="4711")
    study_id = api.send(("a.dcm", file)).get_json()["files"][0]["study_id"]
    sha256 = hashlib.sha256(file).hexdigest()
    document = json.dumps({"images": [{"sha256": sha256, "rendition_sha256": "0" * 64}]})
    with database.begin() as session:
        dataset, other = add_dataset(session, content=document), add_dataset(session, "others", content="{}")
        first, second, third = (add_model(session, name) for name in ("first", "second", "third"))
        for dataset_id, model, initial in (
            (dataset.id, first, None),
            (other.id, second, first),
            (other.id, third, None),
        ):
            run = TrainingRun(project_id=home(session), name="run", dataset_id=dataset_id, config={}, config_digest="")
            run.state, run.model_id = TaskState.SUCCEEDED, model.id
            run.initial_model_id = initial and initial.id
            session.add(run)
        store.put(dataset_key(dataset.digest or ""), document.encode())
        learnt = {str(first.id), str(second.id)}
        dataset_id = dataset.id
    (study,) = api.as_(keys.admin).post("/v1/patients/erase", {"patient_id": "4711"}).get_json()["studies"]
    assert study["study_id"] == study_id
    assert {model["id"] for model in study["learnt"]} == learnt
    assert {model["name"] for model in study["learnt"]} == {"first", "second"}
    with database.begin() as session:
        event = session.scalars(sa.select(AuditEvent).where(AuditEvent.action == "dataset.erase")).one()
        assert (event.subject["dataset_id"], set(event.subject["model_ids"])) == (str(dataset_id), learnt)
        assert session.get_one(Dataset, dataset_id).erased_count == 1
        assert session.scalar(sa.select(sa.func.count()).select_from(Model)) == 3, "models are kept"


def test_the_command_erases_a_patient(
    operator: None, server: Server, carina: Callable[..., str], api: Api, database: Database
) -> None:
    send(api, 1, "4711")
    assert "erased study" in carina("erase", "--patient", "4711", "--yes")
    assert "no study of this patient" in carina("erase", "--patient", "4711", "--yes")
    carina("erase", "--yes", code=2)
    with database.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Study)) == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(Project)) >= 1
