"""FCN-32s, FCN-16s and FCN-8s: fully convolutional VGG-16 with skips from its pooling layers."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from .backbones.vgg16 import STAGE_CHANNELS, VGG16Trunk, bilinear_upsampling
from .layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization

__all__ = ["FCN"]

SKIPS = {32: 0, 16: 1, 8: 2}


class FCN(nn.Module):
    """Fully convolutional VGG-16, on raw pixel values, for images of any size.

    FCN-32s scores the classes after fc7, at stride 32. FCN-16s up-samples these scores twofold and adds the scores of pool4;
    FCN-8s does the same again with pool3. A last, fixed bilinear up-sampling gives the pixels. Every layer of scores begins with
    zeros and the twofold up-samplings as bilinear ones, so that at first the skips change nothing.

    Args:
        stride: 32, 16 or 8.
        out_channels: classes.
        head_channels: of fc6 and fc7; the paper's 4096 are 120 of its 134 million parameters.
        norm: see `VGG16Trunk`: None as in the paper, or a normalisation after every convolution, for a training from scratch.
        pretrained: start from torchvision's ImageNet weights, see `VGG16Trunk`.
        weights_path: a local file with torchvision's state dict, instead of the download.
        mean: of red, green, blue, as shares of 255.
        std: the same.

    Raises:
        ValueError: for another stride, or as `VGG16Trunk`.
        RuntimeError: if the ImageNet weights cannot be had.

    Reference:
        Long et al., CVPR 2015, section 4. Deviations: fc6 is padded and not the image; the skips are trained at once with the
        rest (the "all-at-once" form of Shelhamer et al., TPAMI 2017, without its constant scales) and not stride by stride.
    """

    def __init__(
        self,
        stride: int = 8,
        out_channels: int = 2,
        head_channels: int = 4096,
        norm: str | None = None,
        pretrained: bool = False,
        weights_path: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if stride not in SKIPS:
            raise ValueError(f"stride must be 32, 16 or 8; got {stride}")
        self.stride = stride
        self.normalization = PixelNormalization(mean, std)
        self.trunk = VGG16Trunk(head_channels, norm, pretrained, weights_path)
        self.score_head = _score_layer(head_channels, out_channels)
        # Of pool4, then of pool3.
        skip_channels = (STAGE_CHANNELS[3], STAGE_CHANNELS[2])[: SKIPS[stride]]
        self.upsamplings = nn.ModuleList(bilinear_upsampling(out_channels, 2) for _ in skip_channels)
        self.score_skips = nn.ModuleList(_score_layer(channels, out_channels) for channels in skip_channels)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to logits ``(B, out_channels, H, W)``."""
        _, pooled = self.trunk(self.normalization(images))
        scores = self.score_head(self.trunk.head(pooled[4]))
        for index, (upsample, score_skip) in enumerate(zip(self.upsamplings, self.score_skips)):  # noqa: B905  TorchScript has no strict
            skip = score_skip(pooled[3 - index])
            # Pooling rounds up: twice the coarser map is as large or one larger.
            scores = upsample(scores)[:, :, : skip.shape[2], : skip.shape[3]] + skip
        pixels = F.interpolate(scores, scale_factor=float(self.stride), mode="bilinear", align_corners=False)
        return pixels[:, :, : images.shape[2], : images.shape[3]]


def _score_layer(in_channels: int, out_channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, kernel_size=1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer
