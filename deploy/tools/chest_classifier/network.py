"""The network as PyTorch trains it; `shared.imaging.chest_classifier.network` runs what it has learnt."""

from safetensors.torch import save
from torch import Tensor, nn

from shared.imaging.chest_classifier.card import CLASSES
from shared.imaging.chest_classifier.network import CONVOLUTIONS

_DROPOUT = 0.3


class Network(nn.Module):
    """Convolutions that halve the picture each, and one line per class over all that is left."""

    def __init__(self, side_px: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        channels = 1
        for out, kernel_px in CONVOLUTIONS:
            self.convolutions.append(nn.Conv2d(channels, out, kernel_px, stride=2, padding=kernel_px // 2))
            channels = out
        self.dropout = nn.Dropout(_DROPOUT)
        self.classes = nn.Linear(channels * (side_px >> len(CONVOLUTIONS)) ** 2, len(CLASSES))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits [N, classes] of pictures [N, side, side]."""
        maps = pictures[:, None]
        for convolution in self.convolutions:
            maps = nn.functional.relu(convolution(maps))
        logits: Tensor = self.classes(self.dropout(maps.flatten(1)))
        return logits

    def to_bytes(self) -> bytes:
        """The weights as safetensors; the same weights give the same bytes."""
        return save({name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()})
