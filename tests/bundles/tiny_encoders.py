"""Encoders of every kind of stride, small enough to be trained with in a second."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from shared.encoders.imagenet_backbones import VGG16Encoder

CHANNELS = 6
FACTS: dict[str, Any] = {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}


class Patches(nn.Module):
    """A linear layer on patches, as tokens behind that of the class, as a map or, averaged, as a vector."""

    def __init__(self, stride_px: int, kind: str) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, CHANNELS, stride_px, stride=stride_px)
        self.first = nn.Parameter(torch.randn(1, 1, CHANNELS))
        self.kind = kind

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patches(images)
        if self.kind != "tokens":
            return patches if self.kind == "map" else patches.mean(dim=(2, 3))
        return torch.cat([self.first.expand(images.shape[0], -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)


def exported_encoder(path: Path, stride_px: int, kind: str = "tokens") -> dict[str, Any]:
    """A torch.export file of `Patches` with any batch and image size, and the keys that name it."""
    torch.manual_seed(0)
    sizes = {2: stride_px * Dim("rows", max=512), 3: stride_px * Dim("columns", max=512)}
    example = torch.rand(2, 3, 4 * stride_px, 6 * stride_px)
    network = torch.export.export(Patches(stride_px, kind), (example,), dynamic_shapes=({0: Dim("images"), **sizes},))
    torch.export.save(network, path)
    return {"encoder": str(path)} | {f"encoder_facts::{name}": value for name, value in FACTS.items()}


def vgg16_encoder(path: Path) -> dict[str, Any]:
    """VGG-16 with random weights, as torchvision names them, and the keys that name it."""
    torch.manual_seed(0)
    layers = [layer for stage in VGG16Encoder("vgg16").stages for layer in [*stage, nn.MaxPool2d(2)]]
    torch.save({f"features.{name}": value for name, value in nn.Sequential(*layers).state_dict().items()}, path)
    return {"encoder": "vgg16", "encoder_file": str(path)}
