"""A private certificate authority, and the certificate of a server on this machine that it signed."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.requirements import needs


@dataclass(frozen=True)
class Authority:
    """Files in PEM format."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def server_context(self) -> ssl.SSLContext:
        """TLS of a server that is called `localhost` or `127.0.0.1`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        return context


def make_authority(folder: Path) -> Authority:
    """Make an authority and a server's certificate."""
    openssl = needs("openssl")

    def call(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True)

    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-subj"]
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    call(*new, "/CN=hospital", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", *usage)
    (folder / "names").write_text("subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1\n")
    call(*new, "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-extfile", "names"]
    call("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signing)
    return Authority(folder)
