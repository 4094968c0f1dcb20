"""Slides of many tiles with stored features, made in seconds: their features are the mean colours of their cells."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor
from torch.nn import functional as F

from scripts.declarations.supervision import read_supervision
from shared.data import TissueCache
from shared.encoders import load_encoder
from shared.inference import Compute, SlideEmbedder, Tissue
from shared.synthetic import write_slide

from .conftest import PAINT, ROOT

BUNDLE = ROOT / "bundles" / "alpha_beta_mil"
TILE_PX, MARGIN_PX, STRIDE_PX, SMOOTHING, MPP = 128, 32, 32, 3, 1.0
CORE_PX = TILE_PX - 2 * MARGIN_PX
GLASS, TISSUE = (244, 243, 245), (222, 160, 196)
SETTINGS = {"tile_size_px": TILE_PX, "margin_px": MARGIN_PX, "encoder": "efficientnet_lite0", "smoothing": SMOOTHING, "mpp": MPP}


def write_big_slide(path: Path, tiles: tuple[int, int], tumour: Sequence[tuple[int, int, int, int]] = ()) -> None:
    """Tissue of (columns, rows) `tiles` with glass around it and boxes (x, y, x, y) of another colour, in pixels of 1 um."""
    width, height = ((count + 2) * CORE_PX for count in tiles)
    image = np.full((height, width, 3), GLASS, np.uint8)
    image[CORE_PX:-CORE_PX, CORE_PX:-CORE_PX] = TISSUE
    for left, top, right, bottom in tumour:
        image[top:bottom, left:right] = PAINT
    noise = np.random.default_rng(0).integers(-6, 7, (height, width, 1), np.int8)
    write_slide(path, np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8), MPP)


def copy_bundle(folder: Path) -> Path:
    """The bundle without what trainings of this checkout have left in it, and ``shared`` next to its folder."""
    copy = folder / "bundles" / BUNDLE.name
    shutil.copytree(BUNDLE, copy, symlinks=True, ignore=shutil.ignore_patterns("models", "output"))
    (folder / "shared").symlink_to(ROOT / "shared")
    return copy


def embed(slides: Path, features: Path, tissue: Path | None, tissue_mpp: float = 8.0) -> None:
    """Store features of slides as EfficientNet-Lite0 would: its key, its channels, its coordinates, but quick to compute."""
    encoder = load_encoder("efficientnet_lite0", smoothing=SMOOTHING)
    # It is kept, whatever answers now.
    assert encoder.key
    mixing = torch.randn(encoder.channels, 3, 1, 1, generator=torch.Generator().manual_seed(0))

    def colours(images: Tensor) -> list[Tensor]:
        return [F.conv2d(F.avg_pool2d(images.float(), encoder.native_stride_px), mixing)]

    encoder.native_features = colours
    embedder = SlideEmbedder(
        encoder,
        MPP,
        tile_size_px=TILE_PX,
        margin_px=MARGIN_PX,
        tissue=Tissue(cache=None if tissue is None else TissueCache(tissue, tissue_mpp), mpp=tissue_mpp),
        compute=Compute(device="cpu", num_workers=1),
    )
    embedder.run(slides, features)


def write_head(folder: Path) -> None:
    """An untrained head of alpha_beta_mil on features, as its training leaves it."""
    assert read_supervision(BUNDLE).unit == "slides"
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / name) for name in ("train.json", "features.json")])
    parser.read_meta(str(BUNDLE / "configs" / "metadata.json"))
    parser.update(SETTINGS)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(parser.get(), default=str))
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), folder / "model.pt")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.5, "reason": "given"}))
