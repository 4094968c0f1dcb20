"""The first stages of VGG-16 with a side output each and their fusion."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from .backbones.imagenet_weights import load_imagenet_vgg16
from .backbones.vgg16 import STAGE_CHANNELS, check_vgg_weights, vgg_convolutions
from .layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization
from .layers.side_outputs import StageSideOutputs, checked_side_outputs

__all__ = ["SideOutputVGG"]


class SideOutputVGG(StageSideOutputs):
    """Tumour probability of every pixel from several depths of VGG-16, on raw pixel values.

    A side output is a 1 x 1 convolution to one logit on a stage's last features, before pooling. Learned fusion weights
    (a softmax of ``fusion_logits``, equal at first) serve in training only: the fusion would come to repeat the deepest side
    output, so a trained network fuses with fixed weights. These are a buffer, which loading a checkpoint sets unless they were
    given.

    Images have at least ``2 ** (num_stages - 1)`` pixels per side. Pooling leaves out the rest of a side that this number does
    not divide, so that coarse maps are stretched by less than one of their own pixels.

    Args:
        num_stages: of VGG-16, 1 to 5.
        pretrained: start these stages from torchvision's ImageNet weights, downloaded once: of VGG-16 as it is, or with
            `norm` "batch" or "frozen" of VGG-16 with batch normalisation.
        side_outputs: stages with a side output, counted from 1, ascending to `num_stages`; None for every stage. The paper's
            baseline has ``(3,)``.
        fusion_weights: fixed weight of each side output, not negative, with sum 1; None for the paper's (0.2, 0.35, 0.45) if
            there are three, else equal ones.
        norm: None for VGG-16 as it is, without normalisation; "batch", "group" or "frozen" (see `replace_batch_norm`) after
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
        stages = _checked_side_outputs(num_stages, side_outputs)
        check_vgg_weights(pretrained, norm, weights_path, norms_with_weights=("batch", "frozen"))
        self.smallest_image_px = 2 ** (num_stages - 1)
        trunk = [_vgg_stage(stage, norm) for stage in range(1, num_stages + 1)]
        self.add_stages(trunk, PixelNormalization(mean, std), checkpointing)
        self.add_side_layers([_side_layer(stage) for stage in stages])
        self.add_fusion(stages, fusion_weights)
        if pretrained:
            load_imagenet_vgg16(self.stages, weights_path)


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
    return checked_side_outputs(num_stages, side_outputs)
