"""Bodies that schemathesis cannot write by itself."""

from typing import Any

import schemathesis


def _bytes_of(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@schemathesis.serializer("application/dicom")
def send_file(_: Any, value: Any) -> bytes:
    """Send a DICOM file, or whatever was made up in its place."""
    return _bytes_of(value)


@schemathesis.serializer("multipart/related")
def send_parts(_: Any, value: Any) -> bytes:
    """Send it as the one part of a body."""
    return b"--b\r\nContent-Type: application/dicom\r\n\r\n" + _bytes_of(value) + b"\r\n--b--\r\n"


@schemathesis.hook
def before_call(_: Any, case: Any, __: dict[str, Any]) -> None:
    """Name the boundary of these parts."""
    if (case.media_type or "").startswith("multipart/related"):
        case.headers = {**(case.headers or {}), "Content-Type": f"{case.media_type}; boundary=b"}
