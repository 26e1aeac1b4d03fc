"""The classifier of whole images, trained from files to a card and used as a decoder process uses it."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydicom import uid
from safetensors.numpy import load
from typer.testing import CliRunner

from deploy.tools.chest_classifier.__main__ import app, main
from deploy.tools.chest_classifier.evaluation import rate
from deploy.tools.chest_classifier.fit import SIDE_PX
from deploy.tools.chest_classifier.network import Network
from deploy.tools.chest_classifier.pictures import NothingToLearnFrom, Picture, read_pictures, split
from deploy.tools.chest_classifier.projections import read_ct, views
from shared.imaging.chest_classifier.card import ChestClassifierCard
from shared.imaging.chest_classifier.classifier import CARD_FILE, ChestClassifier
from shared.imaging.chest_classifier.network import forward, standardise
from shared.imaging.isolation import DecoderPool
from shared.phantoms import make_phantom
from shared.vocabulary.flags import Flag
from tests.synthetic_dicom import MAX_PIXELS, make_dicom


def image(seed: int) -> NDArray[np.uint8]:
    return np.rint(255 * make_phantom(seed, 200, 170).pixels).astype(np.uint8)


def write_images(folder: Path, seeds: range) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        cv2.imwrite(str(folder / f"{seed:04d}.png"), image(seed))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("classifier")
    images, noise = write_images(folder / "films", range(10)), folder / "grain"
    noise.mkdir()
    cv2.imwrite(str(noise / "grain.png"), np.random.default_rng(0).integers(0, 255, (128, 128)).astype(np.uint8))
    arguments = f"train --films {images} --other {noise} --out {folder / 'out'} --phantoms 2 --drawn 4"
    result = CliRunner().invoke(app, [*arguments.split(), "--steps", "60", "--batch-size", "32"])
    assert result.exit_code == 0, result.output
    yield folder / "out"
    torch.set_num_threads(threads)


def test_a_training_gives_a_classifier_that_knows_phantoms_it_has_not_seen(trained: Path) -> None:
    classifier = ChestClassifier.load(trained)
    assert classifier.card.fitted_on == {"frontal films": 8, "phantoms": 2, "grain": 1}
    assert classifier.card.chosen_on == {"frontal films": 2}
    likeliest = {
        name: [
            max(scores, key=scores.__getitem__)
            for picture in pictures
            if (scores := classifier.look_at(picture).scores)
        ]
        for name, pictures in {
            "frontal_chest": [image(seed) for seed in range(100, 110)],
            "inverted_chest": [255 - image(seed) for seed in range(100, 110)],
        }.items()
    }
    for name, found in likeliest.items():
        assert found.count(name) >= 8


def test_a_decoder_process_uses_the_classifier_of_its_folder(trained: Path) -> None:
    file = make_dicom(image(100))
    with DecoderPool(1, timeout_s=30, classifier_folder=str(trained)) as pool:
        scores = pool.render(file, rendition_px=256, max_image_pixels=MAX_PIXELS).facts.chest_scores
    assert scores == ChestClassifier.load(trained).look_at(image(100))


def test_an_evaluation_counts_flags_by_kind_and_may_write_them_into_the_card(trained: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "films", range(200, 204))
    arguments = f"evaluate --films {images} --other {images} --classifier {trained}".split()
    result = CliRunner().invoke(app, [*arguments, "--record"])
    assert result.exit_code == 0, result.output
    assert "frontal films, rotated" in result.output
    tested = ChestClassifierCard.model_validate_json((trained / CARD_FILE).read_bytes()).tested_on
    assert set(tested) == {
        "frontal films",
        "frontal films, rotated",
        "frontal films, inverted",
        "frontal films, cut to a part",
        "films",
    }
    assert tested["films"] == tested["frontal films"]
    assert tested["frontal films, rotated"].rates[Flag.ROTATED].of == 12
    ChestClassifier.load(trained)


def test_numpy_computes_what_pytorch_has_learnt() -> None:
    torch.manual_seed(3)
    network = Network(SIDE_PX).eval()
    pictures = np.stack([standardise(np.random.default_rng(seed).random((64, 64), np.float32)) for seed in range(5)])
    with torch.no_grad():
        expected = network(torch.from_numpy(pictures)).softmax(1).numpy()
    weights = load(network.to_bytes())
    assert np.abs(np.stack([forward(weights, picture) for picture in pictures]) - expected).max() < 1e-6


def test_a_patients_images_stay_on_one_side_of_the_split() -> None:
    picture = np.zeros((8, 8), np.uint8)
    pictures = [Picture(Path(f"{number}.png"), f"patient {number % 7}", picture) for number in range(40)]
    kept, held = split(pictures, 0.3, seed=1)
    assert len(kept) + len(held) == 40
    assert len({picture.patient for picture in held}) == 2
    assert not {picture.patient for picture in held} & {picture.patient for picture in kept}


def test_a_coco_document_names_images_and_their_patients(tmp_path: Path) -> None:
    write_images(tmp_path / "images", range(3))
    document = {"images": [{"file_name": f"{seed:04d}.png", "patient": f"P{seed}"} for seed in (0, 2)]}
    (tmp_path / "images.json").write_text(json.dumps(document))
    pictures = read_pictures({"films": [tmp_path / "images.json"]})["films"]
    assert [(picture.path.name, picture.patient) for picture in pictures] == [("0000.png", "P0"), ("0002.png", "P2")]


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"images": []}'])
def test_nothing_to_learn_from_is_said_in_a_sentence(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "images.json").write_bytes(content)
    command = ["carina", "train", "--films", str(tmp_path / "images.json"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("error ")


def test_a_ct_is_seen_from_the_side(tmp_path: Path) -> None:
    """A body twice as broad as deep is twice as broad from the front."""
    down, across = np.mgrid[-1:1:64j, -1:1:64j]
    body = np.where((down / 0.4) ** 2 + (across / 0.8) ** 2 < 1, 40, -1000).astype(np.int16)
    for number in range(20):
        position = {"ImagePositionPatient": [0, 0, 3.0 * number], "PixelSpacing": [3.0, 3.0]}
        scale = {"RescaleSlope": 1, "RescaleIntercept": 0, "Modality": "CT", "SOPClassUID": uid.CTImageStorage}
        (tmp_path / f"{number}.dcm").write_bytes(make_dicom(body, **position, **scale))
    (tmp_path / "notes.txt").write_text("no slice")
    density, slice_mm, pixel_mm = read_ct(tmp_path)
    assert (density.shape, slice_mm, pixel_mm) == ((20, 64, 64), 3.0, 3.0)
    pictures = views(density, slice_mm, pixel_mm)
    assert {kind: len(shown) for kind, shown in pictures.items()} == {"lateral": 66, "belly": 8, "slices": 8}
    aside = pictures["lateral"][3 * 5]  # at 90 degrees
    assert aside.shape[0] == 20
    assert aside.shape[1] / pictures["belly"][0].shape[1] == pytest.approx(0.5, abs=0.1)
    assert aside.shape[1] == pytest.approx(0.4 * 64, abs=5)
    with pytest.raises(NothingToLearnFrom):
        read_ct(write_images(tmp_path / "films", range(1)))


def test_a_rate_says_what_its_count_is_worth() -> None:
    none, half = rate(0, 106), rate(50, 100)
    assert (none.low, none.high) == (0, pytest.approx(0.035, abs=0.001))
    assert (half.low, half.high) == (pytest.approx(0.404, abs=0.001), pytest.approx(0.596, abs=0.001))
