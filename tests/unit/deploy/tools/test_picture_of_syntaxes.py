"""The documentation's pictures are what their scripts draw."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.tools.pictures import syntaxes
from tests.requirements import REPOSITORY

COMMITTED = REPOSITORY / "docs/pictures/syntaxes.png"


def test_a_image_comes_out_of_eight_syntaxes_as_it_went_in() -> None:
    made = syntaxes.columns(260)
    assert len(made) == 8
    lossless = [column for column in made if column.name != "JPEG Extended"]
    assert [column.largest_error for column in lossless] == [0] * 7
    assert all(np.array_equal(column.shown, made[0].shown) for column in lossless)
    assert 0 < made[-1].mean_error < made[-1].largest_error < 64
    assert all(column.frame_bytes < made[0].frame_bytes for column in made[1:])
    assert made[0].held.shape == syntaxes.PANEL_PX


def test_the_script_draws_what_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["syntaxes", str(tmp_path / "drawn.png"), "--height-px", "260"])
    syntaxes.main()
    data = COMMITTED.read_bytes()
    drawn, committed = Image.open(tmp_path / "drawn.png"), Image.open(BytesIO(data))
    assert drawn.size == committed.size
    assert np.asarray(drawn).std() > 40
    assert len(data) < 400_000
