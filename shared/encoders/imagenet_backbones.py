"""MONAI's ResNets and VGG-16 with torchvision's ImageNet weights as encoders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, List  # noqa: UP035  TorchScript reads this

from monai.networks import nets
from torch import Tensor, nn

from ..networks.backbones.imagenet_weights import load_imagenet_vgg16
from ..networks.backbones.resnet import resnet
from ..networks.backbones.vgg16 import STAGE_CHANNELS, vgg_convolutions
from .encoder import Encoder, EncoderFacts, FeatureOptions, facts_of_weights

__all__ = ["ResNetEncoder", "VGG16Encoder", "load_imagenet_backbone"]

RESNET_STRIDES = (4, 8, 16, 32)
LICENCE = "BSD-3-Clause"


class ResNetEncoder(Encoder):
    """The stages of a ResNet, at strides 4, 8, 16 and 32, without weights: see `load_imagenet_backbone`.

    Args:
        name: see `resnet`.
        network: made by `resnet`, without its last linear layer.
        options: which features are taken.
        facts: about other weights than torchvision's.
    """

    def __init__(
        self, name: str, network: nets.ResNet, options: FeatureOptions | None = None, facts: EncoderFacts | None = None
    ) -> None:
        # Of resnet18 and 34 a stage's channels, of the deeper ones, whose blocks are bottlenecks, four times as many.
        widest = 512 if name in ("resnet18", "resnet34") else 2048
        channels = {stride: widest * stride // RESNET_STRIDES[-1] for stride in RESNET_STRIDES}
        super().__init__(facts or EncoderFacts(name, licence=LICENCE), channels, options)
        self.stem = nn.Sequential(network.conv1, network.bn1, network.act, network.maxpool)
        stages = [network.layer1, network.layer2, network.layer3, network.layer4]
        self.stages = nn.ModuleList(stages[: RESNET_STRIDES.index(self.native_stride_px) + 1])
        self.is_map = [stride in self.native_strides_px for stride in RESNET_STRIDES]

    def native_features(self, images: Tensor) -> List[Tensor]:  # noqa: UP006
        maps: List[Tensor] = []  # noqa: UP006
        features = self.stem(images)
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if self.is_map[index]:
                maps.append(features)
        return maps


class VGG16Encoder(Encoder):
    """The stages of VGG-16, before their pooling, at strides 1, 2, 4, 8 and 16, without weights: see `load_imagenet_backbone`.

    Args:
        name: "vgg16", or "vgg16_bn" with batch normalisation.
        options: which features are taken.
        facts: about other weights than torchvision's.
    """

    def __init__(self, name: str, options: FeatureOptions | None = None, facts: EncoderFacts | None = None) -> None:
        channels = {2**index: count for index, count in enumerate(STAGE_CHANNELS)}
        super().__init__(facts or EncoderFacts(name, licence=LICENCE), channels, options)
        norm = "batch" if name == "vgg16_bn" else None
        last = self.native_stride_px.bit_length()
        self.stages = nn.ModuleList(nn.Sequential(*vgg_convolutions(stage, norm)) for stage in range(1, last + 1))
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.is_map = [2**index in self.native_strides_px for index in range(last)]

    def native_features(self, images: Tensor) -> List[Tensor]:  # noqa: UP006
        maps: List[Tensor] = []  # noqa: UP006
        features = images
        for index, stage in enumerate(self.stages):
            features = stage(features if index == 0 else self.pool(features))
            if self.is_map[index]:
                maps.append(features)
        return maps


def load_imagenet_backbone(
    name: str,
    options: FeatureOptions | None = None,
    checkpoint_path: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
) -> Encoder:
    """A ResNet or VGG-16 with torchvision's ImageNet weights (IMAGENET1K_V1), which are downloaded once.

    Args:
        name: of a ResNet, "vgg16" or "vgg16_bn".
        options: which features are taken.
        checkpoint_path: a local file of a state dict with torchvision's names, instead of the download.
        given: facts about the weights of this file, see `completed_facts`.

    Raises:
        ValueError: if the file's keys or shapes are not the network's, or facts are given about torchvision's weights.
        RuntimeError: if the weights cannot be had; it names the file and where to put it.
    """
    facts = facts_of_weights(EncoderFacts(name, licence=LICENCE), given or {}, checkpoint_path)
    if name.startswith("resnet"):
        return ResNetEncoder(name, resnet(name, pretrained=True, weights_path=checkpoint_path), options, facts)
    encoder = VGG16Encoder(name, options, facts)
    load_imagenet_vgg16(encoder.stages, checkpoint_path)
    return encoder
