r"""The trivial predictions that a method has to beat: everything is tumour, and colour alone.

python scripts/comparison/trainings/baselines.py colour_only --manifest images.csv --test test.csv --mpp 1.0 \
    --out runs/colour_only/seed=0
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from scripts.comparison.data import files_key
from scripts.options.class_names import add_class_names_option
from scripts.options.numbers import COUNT, PIXEL_SIZE, SEED
from shared.data import TissueCache, load_manifest, read_image
from shared.data.record import Record
from shared.front_door import begin_script
from shared.inference import Compute, Outputs, SlideMapper, Tiles
from shared.writers import atomic_path
from shared.wsi import open_slide, tissue_mask

BASELINES = {"everything_is_tumour": "Everything is tumour", "colour_only": "Colour only"}
# Always the same, whatever the seed.
UNTRAINED = frozenset({"everything_is_tumour"})
WEIGHTS, TRAINED = "model.pt", "training.json"
# Colours are means over a square of this side: single pixels are nuclei or not, tumour or not they are not.
SQUARE_UM = 16.0
PIXELS_PER_RECORD = 400
# As in `shared.wsi.tissue_mask`.
WHITE_ABOVE = 220
_TILE_PX, _SLIDE_TILES, _SLIDE_TILE_PX = 512, 24, 96


class ConstantClass(nn.Module):
    """One class for every pixel, whatever the image.

    Args:
        num_classes: of the logits; two for a map of tumour.
        index: of the class.
    """

    def __init__(self, num_classes: int, index: int) -> None:
        super().__init__()
        logits = torch.full((num_classes,), -30.0)
        logits[index] = 30.0
        self.register_buffer("logits", logits)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> logits ``(B, C, H, W)``."""
        logits: Tensor = self.get_buffer("logits")
        return logits[None, :, None, None].expand(len(images), -1, *images.shape[2:])


class ColourClassifier(nn.Module):
    """Logistic regression of each pixel's class on the tissue's colour around it: optical densities, their squares and products.

    Args:
        num_classes: of the logits.
        side_px: of the square that a colour is the mean of, odd.
    """

    def __init__(self, num_classes: int, side_px: int) -> None:
        super().__init__()
        self.side_px = side_px
        for name, size in (("mean", (9,)), ("scale", (9,)), ("weight", (num_classes, 9)), ("bias", (num_classes,))):
            self.register_buffer(name, torch.zeros(size))

    def features(self, images: Tensor) -> Tensor:
        """RGB 0..255 ``(B, 3, H, W)`` -> ``(B, 9, H, W)``."""
        # Glass, and the white beyond an image's edge, would make all that is near it pale.
        is_tissue = (images <= WHITE_ABOVE).any(dim=1, keepdim=True).float()
        density = -((images.float() + 1) / 256).log10() * is_tissue
        half = self.side_px // 2
        density, share = (functional.avg_pool2d(part, self.side_px, stride=1, padding=half) for part in (density, is_tissue))
        density = density / share.clamp_min(1e-6)
        pairs = [density[:, first] * density[:, second] for first in range(3) for second in range(first, 3)]
        return torch.cat([density, torch.stack(pairs, dim=1)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> logits ``(B, C, H, W)``."""
        mean, scale, weight, bias = (self.get_buffer(name) for name in ("mean", "scale", "weight", "bias"))
        with torch.autocast(images.device.type, enabled=False):
            features = (self.features(images) - mean[:, None, None]) / scale[:, None, None]
            return functional.conv2d(features, weight[:, :, None, None], bias)

    def fit(self, features: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Learn from features ``(n, 9)`` and class indices ``(n,)``; classes count alike, however rare they are."""
        scaler = StandardScaler().fit(features)
        regression = LogisticRegression(class_weight="balanced", max_iter=500).fit(scaler.transform(features), labels)
        self.get_buffer("mean").copy_(torch.from_numpy(scaler.mean_))
        self.get_buffer("scale").copy_(torch.from_numpy(scaler.scale_))
        coefficients, intercepts = regression.coef_, regression.intercept_
        if len(regression.classes_) == 2:
            # One logit, that of the second class.
            coefficients, intercepts = (np.stack([0 * part[0], part[0]]) for part in (coefficients, intercepts))
        for position, index in enumerate(regression.classes_):
            self.get_buffer("weight")[index] = torch.from_numpy(coefficients[position])
            self.get_buffer("bias")[index] = float(intercepts[position])
        absent = sorted(set(range(len(self.get_buffer("bias")))) - set(regression.classes_.tolist()))
        self.get_buffer("bias")[absent] = -1e4


def train_colours(records: Sequence[Record], num_classes: int, mpp: float, tissue: TissueCache, seed: int) -> ColourClassifier:
    """Fit the colours of the training images: every pixel of tissue has the label of its image or slide.

    Args:
        records: of images, regions or whole slides, with labels.
        num_classes: of the labels.
        mpp: micrometres per pixel.
        tissue: of slides.
        seed: of the pixels that are drawn.
    """
    network = ColourClassifier(num_classes, 2 * round(SQUARE_UM / mpp / 2) + 1)
    rng = np.random.default_rng(seed)
    features, labels = [], []
    for record in tqdm(records, "colours", unit="image", disable=None, leave=False):
        pictures = _pictures(record, mpp, tissue, rng)
        of_record = []
        for picture in pictures:
            is_tissue = tissue_mask(picture, "white")
            found = network.features(torch.from_numpy(picture).permute(2, 0, 1)[None])[0]
            of_record.append(found[:, torch.from_numpy(is_tissue)].T.numpy())
        pixels = np.concatenate(of_record) if of_record else np.empty((0, 9), np.float32)
        chosen = pixels[rng.permutation(len(pixels))[:PIXELS_PER_RECORD]]
        features.append(chosen)
        labels.append(np.full(len(chosen), record["label"]))
    network.fit(np.concatenate(features), np.concatenate(labels))
    return network.eval()


def _pictures(record: Record, mpp: float, tissue: TissueCache, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """The image ``(H, W, 3)`` of a record, or some tissue tiles of a slide."""
    slide = open_slide(record["image"], mpp=record["mpp"])
    if record["x"] is not None or slide.is_picture:
        return [read_image(record, mpp).permute(1, 2, 0).numpy()]
    found = tissue.get(record["image"], record["mpp"])
    rows, columns = np.nonzero(found.mask)
    if not len(rows):
        return []
    chosen = rng.integers(len(rows), size=_SLIDE_TILES)
    half = _SLIDE_TILE_PX * mpp / slide.mpp / 2
    corners = np.stack([columns[chosen], rows[chosen]], axis=1) * found.pixel_px - half
    return list(slide.read_regions(corners.round(), _SLIDE_TILE_PX, mpp=mpp))


def make_network(
    name: str, manifest: Path, num_classes: int, mpp: float, tissue: TissueCache, folder: Path, seed: int
) -> nn.Module:
    """The network of a baseline: trained, or read from `folder` if it was trained there on the same images in the same way."""
    if name == "everything_is_tumour":
        # Of several classes: everything is background, which flatters accuracies.
        return ConstantClass(num_classes, 1 if num_classes == 2 else 0)
    file = folder / WEIGHTS
    records = load_manifest(manifest, split="train", num_classes=num_classes, both_classes=True)
    made_of = json.dumps([num_classes, mpp, seed, files_key(records, tissue.folder)])
    key = hashlib.sha256(made_of.encode() + manifest.read_bytes()).hexdigest()
    if file.is_file():
        kept = torch.load(file, weights_only=True)
        if kept.pop("key", None) == key:
            network = ColourClassifier(num_classes, int(kept.pop("side_px")))
            network.load_state_dict(kept)
            return network
    started = time.perf_counter()
    network = train_colours(records, num_classes, mpp, tissue, seed)
    # The weights last: with them the training is finished, and what it took is not measured again.
    with atomic_path(folder / TRAINED) as temporary:
        temporary.write_text(json.dumps({"seconds": round(time.perf_counter() - started, 2)}) + "\n")
    with atomic_path(file) as temporary:
        torch.save({**network.state_dict(), "side_px": network.side_px, "key": key}, temporary)
    return network


def main() -> None:
    begin_script()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(BASELINES))
    parser.add_argument("--manifest", type=Path, required=True, help="manifest to train on")
    parser.add_argument("--test", type=Path, required=True, help="manifest of whole images or slides to map")
    add_class_names_option(parser)
    parser.add_argument("--mpp", type=PIXEL_SIZE, required=True)
    parser.add_argument("--tissue", type=Path, required=True, help="folder of tissue masks")
    parser.add_argument("--seed", type=SEED, default=0)
    parser.add_argument("--num_workers", type=COUNT, default=1)
    parser.add_argument("--out", type=Path, required=True, help="file for the model")
    parser.add_argument("--maps", type=Path, required=True)
    arguments = parser.parse_args()
    names = arguments.class_names
    try:
        tissue = TissueCache(arguments.tissue)
        network = make_network(
            arguments.name, arguments.manifest, len(names), arguments.mpp, tissue, arguments.out, arguments.seed
        )
        # Tiles overlap by half of what a colour is the mean of.
        margin = round(SQUARE_UM / arguments.mpp / 2) + 1
        mapper = SlideMapper(
            network,
            mpp=arguments.mpp,
            class_names=names if len(names) > 2 else None,
            tiles=Tiles(_TILE_PX, margin),
            outputs=Outputs(map_downsample=1),
            compute=Compute(num_workers=arguments.num_workers),
        )
        mapper.run(arguments.test, arguments.maps)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
