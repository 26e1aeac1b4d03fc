"""A trainer without the device that it is set to gives its task back."""

import pytest
import torch

from trainer.ranks import DeviceUnavailable, joined


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_no_defect_of_the_task() -> None:
    with pytest.raises(DeviceUnavailable), joined("cuda"):
        pass
