"""The one place where pixel values are normalised: the first layer of every network."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "PixelNormalization", "PixelRange", "check_shares_of_255", "normalized_by"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelRange:
    """Checks the first images that a network is given, and warns if they are not RGB values from 0 to 255.

    Values are read from the device once: black images, which say nothing, are passed over until others come. Nothing is looked
    at while a network is traced or compiled.
    """

    def __init__(self) -> None:
        self._is_known = False

    def look(self, images: Tensor) -> None:
        """Warn, once, of images in 0..1, of standardised ones and of those of more than 8 bits."""
        has_values = images.numel() > 0 and not images.is_meta
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or self._is_known or not has_values:
            return
        lowest, highest = (float(value) for value in torch.aminmax(images.detach()))
        self._is_known = (lowest, highest) != (0, 0)
        # Resampling may overshoot a little at both ends.
        is_standardised = lowest < 0 and highest < 16
        if not self._is_known or (1 < highest < 512 and not is_standardised):
            return
        found = "from 0 to 1" if 0 <= lowest <= highest <= 1 else f"from {lowest:.3g} to {highest:.3g}"
        warnings.warn(
            f"the images have values {found}; expected RGB values from 0 to 255, which the network normalises itself. Give it "
            "the pixels as they are stored, or multiply values from 0 to 1 by 255",
            stacklevel=3,
        )


class PixelNormalization(nn.Module):
    """``(pixels / 255 - mean) / std`` for each colour channel.

    The first images are looked at, see `PixelRange`. Mean and standard deviation are buffers, so a checkpoint or an exported
    model carries them.

    Args:
        mean: of red, green, blue, as shares of 255.
        std: the same, > 0.

    Raises:
        ValueError: as `check_shares_of_255`.

    >>> PixelNormalization()(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    tensor([2.2489, 2.4286, 2.6400])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        check_shares_of_255(mean, std)
        self.pixel_range = PixelRange()
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
        if not torch.jit.is_scripting():
            self.pixel_range.look(images)
        # While tracing, a comparison of sizes would only give a warning.
        if not torch.jit.is_tracing() and (images.dim() != 4 or images.shape[1] != 3):
            raise ValueError(f"images must be (B, 3, H, W); got {list(images.shape)}")
        scale = 1 / (255 * self.std.float())
        shift = -self.mean.float() / self.std.float()
        return (images.float() * scale + shift).to(self.mean.dtype)


def check_shares_of_255(mean: Sequence[float], std: Sequence[float]) -> None:
    """Check a mean and a standard deviation of red, green and blue as shares of 255.

    Raises:
        ValueError: if there are not three values each, a mean is not in [0, 1], or a standard deviation not in (0, 1].
    """
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"mean and std must have three values each, of red, green and blue; got mean={mean}, std={std}")
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise ValueError(
            "mean and std must be shares of 255, a mean from 0 to 1 and a std above 0 and up to 1; got "
            f"mean={list(mean)}, std={list(std)}. Divide values of pixels from 0 to 255 by 255"
        )


def normalized_by(network: nn.Module, statistics: Mapping[str, Sequence[float]] | None) -> nn.Module:
    """The network itself, its `PixelNormalization` with the mean and deviation of other images.

    Args:
        network: with a `PixelNormalization` called ``normalization``.
        statistics: ``mean`` and ``std`` of red, green, blue, as shares of 255; None leaves any network as it is.

    Raises:
        ValueError: as `PixelNormalization`.
    """
    if statistics is not None:
        own = network.get_submodule("normalization")
        own.load_state_dict(PixelNormalization(statistics["mean"], statistics["std"]).state_dict())
    return network
