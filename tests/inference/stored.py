"""A small encoder, a network of it and a head, and slides of two kinds of tissue."""

import hashlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from shared.encoders import Encoder
from tests.inference.flat_options import grouped

GLASS, PINK, PURPLE = (245, 245, 245), (215, 130, 180), (120, 60, 150)
OPTIONS = {"tile_size_px": 128, "margin_px": 32, "min_area_um2": 0.0, "amp": False, "device": "cpu", "num_workers": 1}


class Means(nn.Module):
    """Mean red, green, blue and a texture of squares of `stride_px`; where an image has a token of its own, of the image."""

    def __init__(self, stride_px=16, tokens="dense", gain=1.0):
        super().__init__()
        self.name, self.mpp, self.input_size_px, self.channels = "means", None, None, 4
        self.stride_px = self.size_multiple_px = stride_px
        self.enlargement = 1.0
        self.tokens = tokens
        self.gain = nn.Parameter(torch.tensor(gain))

    whole_px, slide_tile_px, slide_margin_px = Encoder.whole_px, Encoder.slide_tile_px, Encoder.slide_margin_px

    @property
    def key(self):
        return hashlib.sha256(f"{self.tokens} {self.stride_px} {self.gain.item()}".encode()).hexdigest()[:16]

    def description(self):
        return {"name": self.name, "key": self.key}

    def forward(self, images):
        texture = (images[:, :1] - images[:, 1:2]).abs()
        cells = functional.avg_pool2d(torch.cat([images, texture], dim=1), self.stride_px) / 255 * self.gain
        return cells.mean(dim=(2, 3), keepdim=True).expand_as(cells) if self.tokens == "class" else cells


class Headed(nn.Module):
    """Images are encoded, features are not; one logit per cell, or one an image."""

    def __init__(self, encoder, pooled=False):
        super().__init__()
        self.encoder, self.pooled = encoder, pooled
        self.head = nn.Conv2d(encoder.channels, 1, 1)
        if isinstance(encoder, Means):
            self.head.weight.data[:] = torch.tensor([10.0, 0.0, 0.0, 6.0])[:, None, None]
            self.head.bias.data.fill_(-8)

    def forward(self, inputs):
        logits = self.head(self.encoder(inputs) if inputs.shape[1] == 3 else inputs)
        return logits.mean(dim=(2, 3)) if self.pooled else logits


def picture(size_px=(900, 700), seed=0):
    """Glass with an ellipse of tissue, striped in pink and purple, (H, W, 3)."""
    width, height = size_px
    y, x = np.mgrid[:height, :width]
    rgb = np.full((height, width, 3), GLASS, np.uint8)
    is_tissue = ((x - width / 2) / (0.35 * width)) ** 2 + ((y - height / 2) / (0.4 * height)) ** 2 < 1
    rgb[is_tissue] = np.where(((x // 90 + y // 70) % 2)[..., None], PINK, PURPLE)[is_tissue]
    noise = np.random.default_rng(seed).integers(-8, 9, rgb.shape)
    return (rgb + noise).clip(0, 255).astype(np.uint8)


def options(**changed):
    """Arguments of a mapper."""
    return grouped(**OPTIONS | changed)
