"""Pseudonyms for the UIDs and ids that tell which files belong to one study or patient."""

import base64
import hmac

from pydicom.uid import UID


class Pseudonyms:
    """Stand-ins that follow from a project's key: always the same, and nobody without the key can tell from what."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def uid(self, original: str) -> str:
        """A UID for an instance's, a series' or a study's (PS3.5 annex B.2)."""
        return f"2.25.{int.from_bytes(self._digest(original)[:16], 'big')}"

    def sop_class(self, original: str) -> str:
        """A SOP class that a standard registers as it is; a UID for any other."""
        uid = UID(original)
        return original if uid.name != original and "SOP Class" in uid.type else self.uid(original)

    def identifier(self, keyword: str, original: str) -> str:
        """16 capitals and digits for a patient's, a study's or a device's number."""
        return base64.b32encode(self._digest(f"{keyword} {original}")[:10]).decode()

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode(), "sha256")
