"""What DICOMweb answers to requests as browsers, viewers and sloppy clients send them."""

from collections.abc import Callable
from io import BytesIO

import imagecodecs
import numpy as np
import PIL.Image
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.integration.conftest import Keys
from tests.integration.dicomweb import Web, image, related
from tests.integration.workshop import Workshop
from tests.requirements import SHARED_CASES
from tests.synthetic_dicom import make_dicom, make_image

STUDY = "/studies/1.2.3"
SERIES = f"{STUDY}/series/1.2.3.1"
INSTANCE = f"{SERIES}/instances/1.2.3.1.1"
OCTETS = "application/octet-stream"


def warnings(response: TestResponse) -> list[str]:
    assert response.status_code == 200, response.get_data(as_text=True)
    return response.headers.getlist("Warning")


def picture_of(response: TestResponse) -> PIL.Image.Image:
    assert response.status_code == 200, response.get_data(as_text=True)
    with PIL.Image.open(BytesIO(response.data)) as picture:
        picture.load()
        return picture


@pytest.mark.parametrize("path", ["/studies", "/series", "/instances", f"{STUDY}/series", f"{SERIES}/instances"])
def test_a_search_ignores_what_is_no_attribute_and_says_so(web: Web, path: str) -> None:
    web.store(image(1))
    plain = web.get(path)
    assert warnings(plain) == []
    response = web.get(path, wait="1", ühm="2", limit="5")
    assert response.get_json() == plain.get_json() != []
    (text,) = warnings(response)
    assert text.startswith("299 http://localhost/dicom-web: ")
    assert "wait, ?hm" in text
    assert "limit" not in text


def test_every_answer_names_the_parameters_that_it_ignored(web: Web) -> None:
    web.store(image(1))
    for path in (STUDY, SERIES, INSTANCE, f"{INSTANCE}/metadata", f"{INSTANCE}/frames/1", f"{INSTANCE}/bulkdata"):
        assert warnings(web.get(path)) == warnings(web.get(f"{path}?charset=utf-8")) == []
        (text,) = warnings(web.get(f"{path}?colour=blue&colour=red"))
        assert "ignored: colour." in text
    many = "&".join(f"p{number}=1" for number in range(500))
    (text,) = warnings(web.get(f"{STUDY}?{many}"))
    assert len(text) < 2000
    assert "and 480 more" in text


@pytest.mark.parametrize("below", ["", "/metadata", "/frames/1", "/bulkdata", "/rendered", "/thumbnail"])
def test_a_slash_may_stand_behind_a_path(web: Web, below: str) -> None:
    web.store(image(1))
    with_slash, without = web.get(f"{INSTANCE}{below}/"), web.get(f"{INSTANCE}{below}")
    assert with_slash.status_code == without.status_code in (200, 409)


def test_a_slash_may_stand_behind_a_search_and_a_store(web: Web) -> None:
    assert web.store(image(1), to="/studies/").status_code == 200
    assert web.store(image(1), to=f"{STUDY}/").status_code == 200
    for path in ("/studies", "/series", "/instances", f"{STUDY}/series", f"{STUDY}/instances", f"{SERIES}/instances"):
        assert web.get(f"{path}/").get_json() == web.get(path).get_json() != []


def test_a_preamble_is_passed_over(web: Web, http: FlaskClient, keys: Keys) -> None:
    headers = {
        "Authorization": f"Bearer {keys.both}",
        "Content-Type": 'multipart/related; type="application/dicom"; boundary=frontier',
    }
    body = b"This is a message in MIME format.\r\n" + related(image(1)) + b"\r\nepilogue"
    assert http.post("/dicom-web/studies", headers=headers, data=body).status_code == 200
    assert len(web.get("/instances").get_json()) == 1


@pytest.fixture
def http(web: Web) -> FlaskClient:
    return web._http


@pytest.mark.parametrize("below", ["", "/metadata"])
def test_the_accept_parameter_comes_before_the_header(web: Web, below: str) -> None:
    web.store(image(1))
    path = f"{INSTANCE}{below}"
    one, other = ("application/dicom", 'multipart/related; type="application/dicom"')
    if below:
        one, other = "application/json", "application/dicom+json"
    for accept in (None, "*/*", other):
        response = web.get(f"{path}?accept={one.replace('+', '%2B')}", accept)
        assert response.content_type.partition(";")[0] == one
    response = web.get(f"{path}?accept=image/gif", one)  # PS3.18 8.7.8.1: then the header counts
    assert response.content_type.partition(";")[0] == one
    assert web.get(f"{path}?accept=image/gif,{one}", "*/*").content_type.partition(";")[0] == one


def test_what_cannot_be_given_is_answered_with_what_can(web: Web) -> None:
    web.store(image(1))
    for path, expected in {
        "/studies": "application/dicom+json, application/json",
        f"{INSTANCE}/metadata": "application/dicom+json, application/json",
        INSTANCE: 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1',
        STUDY: 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1',
        f"{INSTANCE}/frames/1": 'multipart/related; type="application/octet-stream"',
        f"{INSTANCE}/rendered": "image/png, image/jpeg",
        f"{INSTANCE}/thumbnail": "image/jpeg, image/png",
    }.items():
        for response in (
            web.get(path, "application/dicom+xml"),
            web.get(f"{path}?accept=application/dicom%2Bxml", None),
            web.get(f"{path}?accept=image/gif", "application/dicom+xml"),
        ):
            assert (response.status_code, response.get_json()["code"]) == (406, "not_acceptable")
            assert expected in response.get_json()["detail"]


def test_a_plus_in_a_browsers_address_is_taken_for_one(web: Web) -> None:
    web.store(image(1))
    response = web.get("/studies?accept=application/dicom+json", None)
    assert response.content_type == "application/dicom+json"


@pytest.mark.parametrize(
    ("frames", "status", "code"),
    [
        ("1", 200, None),
        ("2", 404, "not_found"),
        ("0", 404, "not_found"),
        ("1,2", 404, "not_found"),
        ("999999999", 404, "not_found"),
        ("first", 422, "invalid_request"),
        ("1,", 422, "invalid_request"),
        ("-1", 422, "invalid_request"),
    ],
)
def test_each_instance_has_one_frame(web: Web, frames: str, status: int, code: str | None) -> None:
    web.store(image(1))
    response = web.get(f"{INSTANCE}/frames/{frames}", OCTETS)
    assert response.status_code == status
    if code is not None:
        for below in ("", "/rendered", "/thumbnail"):
            assert web.get(f"{INSTANCE}/frames/{frames}{below}").get_json()["code"] == code
        return
    assert response.data == make_image().tobytes()
    assert response.headers["Content-Length"] == str(len(response.data))


@pytest.mark.needs("shared/cases")
def test_the_cases_frames_are_answered_as_the_detector_reads_them(web: Web) -> None:
    for name in ("frame_defined_length", "frame_no_offset_table_item"):
        frame = web.get(f"{stored(web, name)}/frames/1", "image/jpeg")
        assert (frame.status_code, frame.content_type) == (200, "image/jpeg")
        assert imagecodecs.jpeg_decode(frame.data).shape == (256, 320)
    path = stored(web, "frame_jpeg_tagged_native")
    for below in ("/frames/1", "/bulkdata"):
        for accept in ("*/*", OCTETS, "image/jpeg"):
            response = web.get(path + below, accept)
            assert (response.status_code, response.get_json()["code"]) == (409, "unreadable_instance")
    padded = web.get(f"{stored(web, 'pixels_excess_padding')}/frames/1", OCTETS)
    assert len(padded.data) == 128 * 160 * 2


@pytest.mark.needs("shared/cases")
def test_the_cases_headers_are_answered_as_they_are(web: Web) -> None:
    path = stored(web, "meta_uids_leading_zero")
    (found,) = web.get(f"{path}/metadata").get_json()
    assert found["0020000D"]["Value"] == ["1.2.826.0.1.3680043.10.1337.0042.613924"]
    stored(web, "qido_long_name_and_accession")
    found = web.get("/studies", limit=1).get_json()[0]
    assert len(found["00100010"]["Value"][0]["Alphabetic"]) > 64
    assert found["00080050"]["Value"] == ["ACC-2024-0000000000001"]
    stored(web, "charset_ir58_escape")
    found = web.get("/studies", limit=1).get_json()[0]
    assert found["00100010"]["Value"] == [{"Alphabetic": "Zhang^XiaoDong", "Ideographic": "张^小东"}]


def stored(web: Web, name: str) -> str:
    """Store a case; return its path."""
    answer = web.store((SHARED_CASES / f"dicom/{name}.dcm").read_bytes())
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.get_json()["00081199"]["Value"][0]["00081190"]["Value"][0].partition("/dicom-web")[2]


def test_a_frame_that_does_not_fit_its_header_is_refused(web: Web) -> None:
    other = imagecodecs.jpegls_encode(make_image(64, 64))
    web.store(image(1, syntax="1.2.840.10008.1.2.4.80", frame=other))
    response = web.get(f"{INSTANCE}/frames/1")
    assert (response.status_code, response.get_json()["code"]) == (409, "unreadable_instance")


def test_pictures_of_frames_and_thumbnails_of_every_level(web: Web, workshop: Workshop) -> None:
    web.store(image(1, SeriesInstanceUID="1.2.3.1"))
    web.store(make_dicom(make_image(400, 300), SeriesInstanceUID="1.2.3.2", SOPInstanceUID="1.2.3.2.1"))
    for path in (f"{INSTANCE}/frames/1/rendered", f"{INSTANCE}/thumbnail", f"{STUDY}/thumbnail"):
        assert web.get(path).get_json()["code"] == "not_ready"
    with workshop.preparing() as prepare:
        prepare.run()
        prepare.run()
    assert web.get(f"{INSTANCE}/frames/1/rendered").data == web.get(f"{INSTANCE}/rendered").data
    large = f"{STUDY}/series/1.2.3.2/instances/1.2.3.2.1"
    for path in (f"{large}/thumbnail", f"{large}/frames/1/thumbnail", f"{STUDY}/series/1.2.3.2/thumbnail"):
        thumbnail = picture_of(web.get(path))
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (192, 256))
        assert picture_of(web.get(path, viewport="64,64", accept="image/png")).size == (48, 64)
    assert picture_of(web.get(f"{STUDY}/thumbnail")).format == "JPEG"
    assert picture_of(web.get(f"{STUDY}/thumbnail?accept=image/png")).format == "PNG"
    for missing in ("/studies/9.9/thumbnail", f"{STUDY}/series/9.9/thumbnail", f"{SERIES}/instances/9.9/thumbnail"):
        assert web.get(missing).status_code == 404
    whole = web.get(f"{STUDY}/rendered", 'multipart/related; type="image/png"')
    assert whole.data.count(b"Content-Type: image/png") == 2
    assert web.get(f"{STUDY}/rendered", "image/png").status_code == 406
    assert web.get(f"{STUDY}/series/1.2.3.2/rendered").data.count(b"Content-Type: image/jpeg") == 1


def test_a_viewport_shows_a_part_of_the_image(web: Web, workshop: Workshop) -> None:
    quarters = np.zeros((96, 80), np.uint16)
    quarters[:48, :40], quarters[48:, 40:] = 4000, 2000
    web.store(make_dicom(quarters, bits=12, SeriesInstanceUID="1.2.3.1", SOPInstanceUID="1.2.3.1.1"))
    with workshop.preparing() as prepare:
        prepare.run()
    path = f"{INSTANCE}/rendered"

    def shown(viewport: str) -> np.ndarray:
        return np.asarray(picture_of(web.get(path, viewport=viewport)))

    assert shown("40,400").shape == (48, 40)
    assert shown("20,20,0,0,40,48").min() == 255
    assert shown("20,20,40,48,,").shape == (20, 17)
    assert shown("80,96,,,-80,96")[:48, 40:].min() == 255
    for wrong in ("10", "0,10", "a,b", "10,10,1,2,3,4,5", "10,10,90,0,5,5", "99999,1", "10,10,nan", "1,1,1e99"):
        response = web.get(path, viewport=wrong)
        assert (response.status_code, response.get_json()["code"]) == (422, "invalid_request"), wrong
    assert web.get(f"{INSTANCE}/thumbnail", viewport="10,10,0,0,5,5").status_code == 422
    assert warnings(web.get(path, viewport="10,10", quality=50)) == []
    (text,) = warnings(web.get(path, window="40,400,linear", annotation="patient"))
    assert "ignored: annotation, window." in text


ORIGIN = "https://viewer.example"
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


@pytest.mark.parametrize("path", ["/dicom-web/studies", "/v1/studies", "/dicom-web/nowhere"])
def test_pages_of_the_named_origins_alone_may_read(make_web: Callable[..., Web], keys: Keys, path: str) -> None:
    http = make_web(keys.both, cors_origins=f"{ORIGIN},http://localhost:3000")._http
    for origin in (ORIGIN, "http://localhost:3000"):
        asked = http.options(path, headers={"Origin": origin, **PREFLIGHT})
        assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (204, origin)
        assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
        assert "GET" in asked.headers["Access-Control-Allow-Methods"]
        for key in (keys.both, "wrong"):
            answer = http.get(path, headers={"Origin": origin, "Authorization": f"Bearer {key}"})
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert "Warning" in answer.headers["Access-Control-Expose-Headers"]
            assert "Origin" in answer.headers["Vary"]
            assert "Access-Control-Allow-Credentials" not in answer.headers
    for origin in ("https://evil.example", "https://viewer.example.evil", "https://viewer.example:8443", "null", ""):
        asked = http.options(path, headers={"Origin": origin, **PREFLIGHT})
        answer = http.get(path, headers={"Origin": origin, "Authorization": f"Bearer {keys.both}"})
        for response in (asked, answer):
            assert not [name for name, _ in response.headers if name.startswith("Access-Control-")]
            assert "Origin" in response.headers["Vary"]


def test_no_origin_may_read_by_default(web: Web, http: FlaskClient, keys: Keys) -> None:
    asked = http.options("/dicom-web/studies", headers={"Origin": ORIGIN, **PREFLIGHT})
    answer = http.get("/dicom-web/studies", headers={"Origin": ORIGIN, "Authorization": f"Bearer {keys.both}"})
    assert answer.status_code == 200
    for response in (asked, answer):
        assert not [name for name, _ in response.headers if name.startswith("Access-Control-")]
        assert "Vary" not in response.headers


def test_the_console_is_no_business_of_other_origins(make_web: Callable[..., Web], keys: Keys) -> None:
    http = make_web(keys.both, cors_origins=ORIGIN)._http
    answer = http.get("/console/sign-in", headers={"Origin": ORIGIN})
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
