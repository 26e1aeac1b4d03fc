"""How much the boxes of several readers count."""

from dataclasses import replace

import numpy as np
import pytest

from shared.training.config import Labels
from tests.tiny_images import tiny_dataset
from trainer.labels import NoReaders, confidences, require_readers

#: Three readers read it. All of them drew the first box, two the second, one the third.
IMAGE = replace(
    tiny_dataset(1).images[0],
    category_ids=np.array([7, 7, 3]),
    boxes_xyxy_px=np.array([[0, 0, 9, 9], [20, 20, 40, 40], [60, 60, 90, 90]], np.float32),
    readers=("A", "B", "C"),
    box_readers=(("A", "B", "C"), ("A", "B"), ("C",)),
    probabilities=np.array([1, np.nan, 0.25]),
)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, [1, 1, 1]),
        ({"confidence": "agreement"}, [1, 2 / 3, 1 / 3]),
        ({"confidence": "probability"}, [1, 1, 0.25]),
        ({"ignore_lone": True}, [1, 1, 0]),
        ({"confidence": "agreement", "ignore_lone": True}, [1, 2 / 3, 0]),
        ({"reader_weights": {"C": 0.5}}, [1, 1, 0.5]),
        ({"reader_weights": {"C": 0}}, [1, 1, 0]),
        ({"confidence": "agreement", "reader_weights": {"C": 2}}, [1, 0.5, 0.5]),
        ({"confidence": "probability", "reader_weights": {"C": 0.5}}, [1, 1, 0.125]),
        ({"ignore_lone": True, "reader_weights": {"B": 0}}, [1, 0, 0]),
    ],
)
def test_a_box_counts_as_the_labels_say(labels: dict[str, object], expected: list[float]) -> None:
    np.testing.assert_allclose(confidences(IMAGE, Labels.model_validate(labels)), expected)


def test_an_image_of_one_reader_has_no_lone_boxes() -> None:
    alone = replace(IMAGE, readers=("C",), box_readers=(("C",),) * 3)
    assert confidences(alone, Labels(ignore_lone=True)).tolist() == [1, 1, 1]


def test_boxes_count_fully_where_readers_are_unknown() -> None:
    unknown = replace(IMAGE, readers=(), box_readers=(), probabilities=None)
    assert confidences(unknown, Labels(confidence="agreement", ignore_lone=True)).tolist() == [1, 1, 1]


def test_labels_that_the_images_cannot_have_are_refused() -> None:
    unknown = replace(IMAGE, readers=(), box_readers=(), probabilities=None)
    require_readers([unknown], Labels())
    for labels in (Labels(confidence="agreement"), Labels(ignore_lone=True), Labels(reader_weights={"A": 2})):
        with pytest.raises(NoReaders):
            require_readers([unknown], labels)
        require_readers([unknown, IMAGE], labels)
    with pytest.raises(NoReaders, match="Z"):
        require_readers([IMAGE], Labels(reader_weights={"Z": 2}))
    with pytest.raises(NoReaders, match="probability"):
        require_readers([replace(IMAGE, probabilities=None)], Labels(confidence="probability"))
