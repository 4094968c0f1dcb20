"""U-Net on raw pixel values."""

from collections.abc import Sequence

from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from .layers.norm_layers import replace_batch_norm
from .layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization

__all__ = ["UNet"]


class UNet(nn.Module):
    """MONAI's 2-D BasicUNet with the widths of the paper, for any image of at least 16 x 16 pixels.

    Export it with ``torch.jit.script``: a trace would keep the padding of the size that it was traced with.

    Args:
        out_channels: classes.
        features: channels of the five levels of the encoder, then those of the last decoder level.
        norm: "batch", "group" or "frozen", see `InstanceClassifier`.
        mean: of red, green, blue, as shares of 255.
        std: the same.

    Raises:
        ValueError: if there are not six numbers of features, or there is no such norm.

    Reference:
        Ronneberger et al., MICCAI 2015. Deviations: normalised layers, and zero padding, so that the output has the
        size of the input; sizes that are no multiple of 16 are padded by replication inside the decoder.
    """

    def __init__(
        self,
        out_channels: int = 2,
        features: Sequence[int] = (64, 128, 256, 512, 1024, 64),
        norm: str = "batch",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if len(features) != 6:
            raise ValueError(f"features must be six numbers: five levels and the output; got {features}")
        # Four poolings by two.
        self.smallest_image_px = 16
        self.normalization = PixelNormalization(mean, std)
        unet = BasicUNet(
            spatial_dims=2,
            in_channels=3,
            out_channels=out_channels,
            features=tuple(features),
            act=("relu", {"inplace": True}),
            norm="batch",
        )
        self.unet = replace_batch_norm(unet, norm)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to logits ``(B, out_channels, H, W)``."""
        return self.unet(self.normalization(images))
