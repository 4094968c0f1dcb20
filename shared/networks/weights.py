"""Weights of a trained stage: a state dict in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from .backbones.checkpoints import check_finite, read_checkpoint
from .deeplab_v2 import DeepLabV2
from .instance_classifier import InstanceClassifier
from .wildcat import Wildcat

__all__ = ["load_backbone", "load_initial_weights", "load_weights"]

_CLASSIFIER_ENTRY = "resnet.conv1.weight"


def load_weights(network: nn.Module, path: str | Path, missing_ok: bool = False) -> nn.Module | None:
    """Load a state dict into a network, strictly.

    Args:
        network: changed in place.
        path: of a file that ``torch.save(network.state_dict(), path)`` wrote.
        missing_ok: return None where there is no such file, instead of an error.

    Returns:
        `network`, in eval mode.

    Raises:
        ValueError: naming the file, if it is missing, unreadable, or of another network, or a weight is NaN or infinite.
    """
    path = Path(path)
    if missing_ok and not path.is_file():
        return None
    state = _read(path)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path} does not hold the weights of a {type(network).__name__} as configured: {error}") from error
    check_finite(network, path)
    return network.eval()


def load_initial_weights(network: nn.Module, path: str | Path) -> None:
    """Begin with the weights of another training.

    Args:
        network: changed in place: all of it; where a `DeepLabV2` or a `Wildcat` is given the weights of an `InstanceClassifier`,
            its ResNet.
        path: of a state dict of the same network, or of the classifier.

    Raises:
        ValueError: naming the file, if it is missing, unreadable, or of another network or ResNet.
    """
    if isinstance(network, (DeepLabV2, Wildcat)) and _CLASSIFIER_ENTRY in _read(Path(path)):
        load_backbone(network, path)
    else:
        load_weights(network, path)


def load_backbone(network: DeepLabV2 | Wildcat, path: str | Path) -> None:
    """Start a segmentation network's ResNet from that of a trained `InstanceClassifier`.

    Args:
        network: its ``backbone`` is changed in place, the rest is left.
        path: of the classifier's state dict.

    Raises:
        ValueError: naming the file, if it is missing or of another ResNet.
    """
    classifier = InstanceClassifier(network.backbone_name, norm=network.norm)
    load_weights(classifier, path)
    state = {name: value for name, value in classifier.resnet.state_dict().items() if not name.startswith("fc.")}
    network.backbone.load_state_dict(state)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"the weights {path} do not exist: train first, or give the checkpoint of a trained network")
    return read_checkpoint(path)
