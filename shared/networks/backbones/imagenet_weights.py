"""ImageNet weights for MONAI's 2-D ResNets, whose parameters have torchvision's names and shapes, and for VGG-16 with or
without batch normalisation."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.norm_layers import FrozenBatchNorm2d
from .checkpoints import read_checkpoint

__all__ = ["IMAGENET_URLS", "load_imagenet_vgg16", "load_imagenet_vgg16_classifier", "load_imagenet_weights"]

# torchvision's IMAGENET1K_V1.
IMAGENET_URLS = {
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "resnet101": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    "resnet152": "https://download.pytorch.org/models/resnet152-394f9c45.pth",
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg16_bn": "https://download.pytorch.org/models/vgg16_bn-6c64b313.pth",
}
# The convolutions' numbers in torchvision's `features`, which counts ReLUs and pooling too.
VGG16_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
# The same with batch normalisation, which has the number after its convolution's.
VGG16_BN_CONVOLUTIONS = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
# And those of its first two linear layers in `classifier`.
VGG16_LINEAR_LAYERS = (0, 3)


def load_imagenet_weights(network: nn.Module, backbone: str, weights_path: str | Path | None = None) -> None:
    """Load torchvision's ImageNet weights into a ResNet, all but the last linear layer.

    Args:
        network: a ResNet with batch normalisation and torchvision's parameter names; changed in place.
        backbone: a ResNet among `IMAGENET_URLS`.
        weights_path: a file with torchvision's state dict, instead of the one that is downloaded once to
            ``<torch.hub.get_dir()>/checkpoints``.

    Raises:
        ValueError: if there are no weights for this backbone, or the file's keys or shapes are not the network's.
        RuntimeError: if the weights cannot be had; it names the file and where to put it.
    """
    weights = _weights_of(backbone, weights_path)
    weights = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    expected = {key: value for key, value in network.state_dict().items() if not key.startswith("fc.")}
    _check_weights(weights, expected, backbone)
    network.load_state_dict(weights, strict=False)


def load_imagenet_vgg16(stages: nn.Module, weights_path: str | Path | None = None) -> None:
    """Load torchvision's ImageNet weights into the first convolutions of VGG-16, whatever their names.

    Args:
        stages: its convolutions are the first ones of VGG-16, in order; changed in place. Where batch normalisation (or
            `FrozenBatchNorm2d`) follows each, both take the weights of ``vgg16_bn``.
        weights_path: see `load_imagenet_weights`.

    Raises:
        ValueError: if the file's keys or shapes are not those of VGG-16 (with batch normalisation where `stages` has it).
        RuntimeError: if the weights cannot be had; it names the file and where to put it.
    """
    convolutions = [module for module in stages.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in stages.modules() if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d))]
    backbone, numbers = ("vgg16_bn", VGG16_BN_CONVOLUTIONS) if norms else ("vgg16", VGG16_CONVOLUTIONS)
    named: dict[str, nn.Module] = {f"features.{n}.": layer for n, layer in zip(numbers, convolutions, strict=False)}
    named |= {f"features.{n + 1}.": layer for n, layer in zip(numbers, norms, strict=False)}
    deeper = tuple(f"features.{n + offset}." for n in numbers[len(convolutions) :] for offset in range(1 + bool(norms)))
    ignored = ("classifier.", *deeper)
    weights = {key: value for key, value in _weights_of(backbone, weights_path).items() if not key.startswith(ignored)}
    expected = {prefix + key: value for prefix, layer in named.items() for key, value in layer.state_dict().items()}
    _check_weights(weights, expected, backbone)
    for prefix, layer in named.items():
        state = layer.state_dict()
        layer.load_state_dict({key: weights.get(prefix + key, value) for key, value in state.items()})


def load_imagenet_vgg16_classifier(head: nn.Module, weights_path: str | Path | None = None) -> None:
    """Load torchvision's ImageNet weights of VGG-16's first two linear layers into convolutions of 7 x 7 and 1 x 1.

    Args:
        head: with these two convolutions, of 4096 channels each, in order; changed in place.
        weights_path: see `load_imagenet_weights`.

    Raises:
        ValueError: if the file has no such layers, or of other sizes.
        RuntimeError: if the weights cannot be had; it names the file and where to put it.
    """
    convolutions = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    named = {f"classifier.{number}.": layer for number, layer in zip(VGG16_LINEAR_LAYERS, convolutions, strict=True)}
    weights = {key: value for key, value in _weights_of("vgg16", weights_path).items() if key.startswith(tuple(named))}
    # A linear layer takes the features (C, h, w) of its image as one row.
    expected = {
        p + key: value.flatten(1) if value.ndim > 1 else value for p, c in named.items() for key, value in c.state_dict().items()
    }
    _check_weights(weights, expected, "vgg16")
    for prefix, layer in named.items():
        layer.load_state_dict({key: weights[prefix + key].reshape(value.shape) for key, value in layer.state_dict().items()})


def _weights_of(backbone: str, weights_path: str | Path | None) -> Mapping[str, Any]:
    if weights_path is not None:
        return _read(Path(weights_path))
    if backbone not in IMAGENET_URLS:
        raise ValueError(f"ImageNet weights exist for {', '.join(IMAGENET_URLS)}; got {backbone!r}")
    return _download(IMAGENET_URLS[backbone])


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise RuntimeError(f"cannot read the weights {path}: there is no such file")
    return read_checkpoint(path)


def _download(url: str) -> Mapping[str, Any]:
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RuntimeError(
            f"cannot get the ImageNet weights: {error}. Download {url} on a machine with network access, put it at {path} "
            "and start again, or give it as weights_path"
        ) from error


def _check_weights(weights: Mapping[str, Any], expected: Mapping[str, Tensor], backbone: str) -> None:
    # Files older than PyTorch 0.4.1, V1 of ResNet among them, lack this counter; it has no part in the result.
    missing = [key for key in expected if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in expected]
    if missing or unexpected:
        raise ValueError(
            f"the weights must have the keys of {backbone}; "
            f"{len(missing)} missing {missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}"
        )
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            raise ValueError(f"{key} must be {tuple(expected[key].shape)}; got {tuple(value.shape)} in the weights")
