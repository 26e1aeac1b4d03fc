"""Takes the documentation's pictures of the console, from a running stack that has found something.

While `make demo` runs: `. .carina/env; python -m deploy.tools.pictures.console docs/pictures`. Wants Playwright, of
the `dev` extra, and its Chromium (`playwright install chromium`) or one on PATH.
"""

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from shared.settings import ClientSettings

SIZE_PX = {"width": 1200, "height": 760}


def take(folder: Path, api_url: str, api_key: str) -> None:
    """Take the pictures: `worklist.png`, `viewer.png` and `queue.png`."""
    with _signed_in(api_url, api_key) as page:
        _save(page, folder / "worklist.png")
        # The study with the most findings that the first page shows.
        rows = page.locator("tbody tr").all()
        fullest = max(rows, key=lambda row: len(row.locator("td").nth(3).inner_text()))
        fullest.get_by_role("link").first.click()
        page.locator("body[data-shown]").wait_for()
        page.get_by_role("list", name="Findings").get_by_role("button").first.click()
        _save(page, folder / "viewer.png")
        page.goto(f"{api_url}/console/queue")
        page.locator("canvas").first.wait_for()
        _save(page, folder / "queue.png")


@contextmanager
def _signed_in(api_url: str, api_key: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(base_url=api_url, viewport=SIZE_PX, color_scheme="light")  # type: ignore[arg-type]
        page.goto(f"{api_url}/console/sign-in")
        page.get_by_label("API key").fill(api_key)
        page.get_by_role("button", name="Sign in").click()
        page.locator("tbody tr").first.wait_for()
        yield page
        browser.close()


def _save(page: Page, path: Path) -> None:
    """Save a picture of the page in 128 colours, which takes a tenth of the bytes."""
    page.wait_for_timeout(500)  # wait for the end of animations
    picture = Image.open(BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(128).save(path, optimize=True)


def main() -> None:
    """Take the pictures into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    settings = ClientSettings()
    take(folder, settings.api_url, settings.api_key.get_secret_value())


if __name__ == "__main__":
    main()
