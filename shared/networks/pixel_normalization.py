"""The one place where pixel values are normalised: the first layer of every network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "PixelNormalization"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelNormalization(nn.Module):
    """``(pixels / 255 - mean) / std`` for each colour channel.

    Mean and standard deviation are buffers, so a checkpoint or an exported model carries them.

    Args:
        mean: of red, green, blue, as shares of 255.
        std: the same, > 0.

    Raises:
        ValueError: if there are not three values each, or a standard deviation is not positive.

    >>> PixelNormalization()(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    tensor([2.2489, 2.4286, 2.6400])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean and std must have three values each, std above 0; got mean={mean}, std={std}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise RGB images.

        Args:
            images: ``(B, 3, H, W)``, uint8 or float, values 0 to 255.

        Returns:
            same shape and memory format, float32; after `.to(dtype)` of the network, that dtype.

        Raises:
            ValueError: if the images do not have three channels: broadcasting would hide it.
        """
        # While tracing, a comparison of sizes would only give a warning.
        if not torch.jit.is_tracing() and (images.dim() != 4 or images.shape[1] != 3):
            raise ValueError(f"images must be (B, 3, H, W); got {list(images.shape)}")
        scale = 1 / (255 * self.std.float())
        shift = -self.mean.float() / self.std.float()
        return (images.float() * scale + shift).to(self.mean.dtype)
