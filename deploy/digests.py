"""`make digests`: look up the digests of docker-compose.yml's images and write them to `.env` for Compose.

A tag can be moved to another image, a digest cannot. Run it again after an image's version has changed.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_IMAGE = re.compile(r"\b([a-z][\w./-]*:[\w.-]+)\$\{([A-Z]+_DIGEST):-\}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def images(compose: str) -> dict[str, str]:
    """Return the images of a Compose file by the variable of their digest."""
    return {variable: image for image, variable in _IMAGE.findall(compose)}


def look_up(image: str) -> str:
    """Look up the digest in the image's registry with Docker. Exits if the registry does not answer."""
    command = ["docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", image]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit("Docker is missing: install it, or look the digests up elsewhere.")
    digest = said.stdout.strip()
    if said.returncode != 0 or not _DIGEST.fullmatch(digest):
        sys.exit(f"The digest of {image} cannot be looked up: {said.stderr.strip() or 'the registry said nothing'}")
    return digest


def write(text: str, digests: dict[str, str]) -> str:
    """Return the text of `.env` with these digests instead of older ones."""
    kept = [line for line in text.splitlines() if line.partition("=")[0] not in digests]
    return "".join(f"{line}\n" for line in [*kept, *(f"{name}=@{digest}" for name, digest in digests.items())])


def main() -> None:
    """Look up all digests before writing any."""
    digests = {
        variable: look_up(image) for variable, image in images((ROOT / "docker-compose.yml").read_text()).items()
    }
    path = ROOT / ".env"
    path.write_text(write(path.read_text() if path.exists() else "", digests))
    print("\n".join(f"{name}=@{digest}" for name, digest in digests.items()))  # noqa: T201 - the command's output


if __name__ == "__main__":
    main()
