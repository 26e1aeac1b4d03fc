"""DICOMweb in this process, and images to send to it."""

import numpy as np
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.synthetic_dicom import make_dicom, make_image

STUDY, SERIES = "1.2.3", "1.2.3.1"


def image(number: int, **elements: object) -> bytes:
    """An image that no other number makes."""
    named = {"SeriesInstanceUID": SERIES, "SOPInstanceUID": f"1.2.3.1.{number}", "InstanceNumber": number}
    named |= {"Modality": "DX", "PatientID": "secret-id", "StudyDate": "20260102", "StudyDescription": "Thorax"}
    return make_dicom(make_image() // np.uint16(number), **named | elements)


class Web:
    """DICOMweb in this process."""

    def __init__(self, http: FlaskClient, key: str) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {key}"}

    def get(self, path: str, accept: str | None = "*/*", **query: object) -> TestResponse:
        """Ask with an `Accept` header, or without one where it is None; a path may have a query of its own."""
        headers = self._headers | ({"Accept": accept} if accept is not None else {})
        return self._http.get(f"/dicom-web{path}", headers=headers, query_string=query or None)

    def store(self, *parts: bytes, to: str = "/studies", **headers: str) -> TestResponse:
        """Send each part as an instance."""
        sent = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=frontier'}
        sent |= self._headers | {name.replace("_", "-"): value for name, value in headers.items()}
        return self._http.post(f"/dicom-web{to}", headers=sent, data=related(*parts))


def related(*parts: bytes) -> bytes:
    head = b"--frontier\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + part + b"\r\n" for part in parts) + b"--frontier--\r\n"
