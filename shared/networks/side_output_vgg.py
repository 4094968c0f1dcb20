"""The first stages of VGG-16 with a side output each and their fusion."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .backbones.imagenet_weights import load_imagenet_vgg16
from .backbones.vgg16 import STAGE_CHANNELS, check_vgg_weights, vgg_convolutions
from .layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization

__all__ = ["SideOutputVGG", "fuse_probabilities"]

# Of three side outputs, found by cross-validation: section III.B.3 of the paper.
PAPER_WEIGHTS = (0.2, 0.35, 0.45)


def fuse_probabilities(side_probabilities: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over the side outputs, ``sum_t weights[t] * side_probabilities[:, t]``.

    Args:
        side_probabilities: ``(B, T, H, W)``.
        weights: ``(T,)``, not negative, with sum 1.

    Returns:
        probabilities ``(B, 1, H, W)``.

    Reference:
        Jia et al., IEEE TMI 2017, equation (10).

    >>> fuse_probabilities(torch.tensor([0.5, 1.0]).view(1, 2, 1, 1), torch.tensor([0.25, 0.75])).item()
    0.875
    """
    # Rounded weights may give a little more than 1.
    return (side_probabilities * weights[:, None, None]).sum(dim=1, keepdim=True).clamp(max=1)


class SideOutputVGG(nn.Module):
    """Tumour probability of every pixel from several depths of VGG-16, on raw pixel values.

    A side output is a 1 x 1 convolution to one logit on a stage's last features, before pooling. Learned fusion weights
    (a softmax of ``fusion_logits``, equal at first) serve in training only: the fusion would come to repeat the deepest side
    output, so a trained network fuses with fixed weights. These are a buffer, and loading a checkpoint sets them.

    Images have at least ``2 ** (num_stages - 1)`` pixels a side. Pooling leaves out the rest of a side that this number does
    not divide, so that coarse maps are stretched by less than one of their own pixels.

    Args:
        num_stages: of VGG-16, 1 to 5.
        pretrained: start these stages from torchvision's ImageNet weights, downloaded once: of VGG-16 as it is, or with
            `norm` "batch" or "frozen" of VGG-16 with batch normalisation.
        side_outputs: stages with a side output, counted from 1, ascending to `num_stages`; None for every stage. The paper's
            baseline has ``(3,)``.
        fusion_weights: fixed weight of each side output, not negative, with sum 1; None for the paper's (0.2, 0.35, 0.45) if
            there are three, else equal ones.
        norm: None for VGG-16 as it is, without normalisation; "batch", "group" or "frozen" (see `replace_batch_norm`) behind
            every convolution, without which a training from scratch stays at chance for long.
        checkpointing: keep only each stage's output for the backward pass and compute the rest again: less memory for time.
            Batch normalisation then counts every batch twice in its running statistics.
        weights_path: a local file with torchvision's state dict, instead of the download.
        mean: of red, green, blue, as shares of 255.
        std: the same.

    Raises:
        ValueError: if there are no such stages, the fusion weights or the ImageNet weights do not fit, or `weights_path` is
            not asked for, or `pretrained` is asked for with the norm "group".
        RuntimeError: if the ImageNet weights cannot be had: it never starts from random values instead.

    Reference:
        Jia et al., IEEE TMI 2017, sections III.B.3 and IV. Readings and deviations: logits, not probabilities, are brought to
        the size of the image, then the sigmoid is taken, as in HED (Xie & Tu, ICCV 2015): losses can be computed from logits;
        the learned weights stay positive with sum 1; torchvision's weights and pixel normalisation in place of Caffe's.
    """

    fusion_weights: Tensor
    fusion_logits: Tensor | None

    def __init__(
        self,
        num_stages: int = 3,
        pretrained: bool = False,
        side_outputs: Sequence[int] | None = None,
        fusion_weights: Sequence[float] | None = None,
        norm: str | None = None,
        checkpointing: bool = False,
        weights_path: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.side_outputs = _checked_side_outputs(num_stages, side_outputs)
        check_vgg_weights(pretrained, norm, weights_path, norms_with_weights=("batch", "frozen"))
        num_sides = len(self.side_outputs)
        self.checkpointing = checkpointing
        self.smallest_image_px = 2 ** (num_stages - 1)
        self.normalization = PixelNormalization(mean, std)
        self.stages = nn.ModuleList(_vgg_stage(stage, norm) for stage in range(1, num_stages + 1))
        self.side_layers = nn.ModuleList(_side_layer(stage) for stage in self.side_outputs)
        self.register_parameter("fusion_logits", nn.Parameter(torch.zeros(num_sides)) if num_sides > 1 else None)
        self.register_buffer("fusion_weights", _checked_fusion_weights(num_sides, fusion_weights))
        if pretrained:
            load_imagenet_vgg16(self.stages, weights_path)

    def taps(self, images: Tensor) -> list[Tensor]:
        """RGB images ``(B, 3, H, W)``, 0 to 255, to each stage's features ``(B, C, H >> s, W >> s)``, s = 0, 1, ..."""
        features = self.normalization(images)
        taps: list[Tensor] = []
        for stage in self.stages:
            if not torch.jit.is_scripting() and self.checkpointing and self.training:
                features = checkpoint(stage, features, use_reentrant=False, preserve_rng_state=False)
            else:
                features = stage(features)
            taps.append(features)
        return taps

    def side_logits(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to the side outputs' logits ``(B, T, H, W)``, float32."""
        taps = self.taps(images)
        logits: list[Tensor] = []
        for index, layer in enumerate(self.side_layers):
            coarse = layer(taps[self.side_outputs[index] - 1]).float()
            logits.append(F.interpolate(coarse, size=images.shape[-2:], mode="bilinear", align_corners=False))
        return torch.cat(logits, dim=1)

    def side_probabilities(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to the side outputs' probabilities ``(B, T, H, W)``."""
        return self.side_logits(images).sigmoid()

    def maps(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)`` to the side outputs' probabilities and, last, their fusion with the fixed weights.

        Returns:
            ``(B, T + 1, H, W)``, float32, in either mode.
        """
        sides = self.side_probabilities(images)
        return torch.cat([sides, fuse_probabilities(sides, self.fusion_weights.float())], dim=1)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to maps of the same size, float32.

        Returns:
            in train mode logits of the side outputs ``(B, T, H, W)`` and the probabilities ``(B, 1, H, W)`` of their fusion with
            the learned weights, None if there is one side output only; in eval mode, and from a scripted network, the
            probabilities ``(B, 1, H, W)`` of their fusion with the fixed weights.
        """
        if not torch.jit.is_scripting() and self.training:
            side_logits = self.side_logits(images)
            if self.fusion_logits is None:
                return side_logits, None
            return side_logits, fuse_probabilities(side_logits.sigmoid(), self.fusion_logits.float().softmax(dim=0))
        return fuse_probabilities(self.side_probabilities(images), self.fusion_weights.float())


def _vgg_stage(stage: int, norm: str | None) -> nn.Module:
    """Pooling (not in the first stage), so that the stage ends with the features before pooling, and the convolutions."""
    pooling: list[nn.Module] = [nn.MaxPool2d(kernel_size=2, stride=2)] if stage > 1 else []
    return nn.Sequential(*pooling, *vgg_convolutions(stage, norm))


def _side_layer(stage: int) -> nn.Conv2d:
    layer = nn.Conv2d(STAGE_CHANNELS[stage - 1], 1, kernel_size=1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def _checked_side_outputs(num_stages: int, side_outputs: Sequence[int] | None) -> list[int]:
    if not 1 <= num_stages <= len(STAGE_CHANNELS):
        raise ValueError(f"num_stages must be 1 to {len(STAGE_CHANNELS)}; got {num_stages}")
    stages = list(range(1, num_stages + 1)) if side_outputs is None else list(side_outputs)
    # A stage behind the last side output would be computed for nothing and learn nothing.
    if not stages or stages != sorted(set(stages)) or stages[0] < 1 or stages[-1] != num_stages:
        raise ValueError(f"side_outputs must ascend from 1 or more to num_stages={num_stages}; got {side_outputs}")
    return stages


def _checked_fusion_weights(num_sides: int, fusion_weights: Sequence[float] | None) -> Tensor:
    if fusion_weights is None:
        fusion_weights = PAPER_WEIGHTS if num_sides == len(PAPER_WEIGHTS) else [1 / num_sides] * num_sides
    is_mean = len(fusion_weights) == num_sides and min(fusion_weights) >= 0 and math.isclose(sum(fusion_weights), 1, abs_tol=1e-6)
    if not is_mean:
        raise ValueError(f"fusion_weights must be {num_sides} numbers >= 0 with sum 1; got {fusion_weights}")
    return torch.tensor(fusion_weights, dtype=torch.float32)
