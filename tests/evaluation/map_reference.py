"""What `MapEvaluation` should find on painted slides, computed once more from its files in NumPy and scikit-learn."""

import csv
import math

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from sklearn.metrics import jaccard_score, precision_score, recall_score, roc_auc_score
from torch import nn

ALPHA, THRESHOLD, METHOD = 0.2, 0.3, "paint"
# At 1 um per pixel with 4 pixels a map pixel, of slides of 0.5 um.
MAP_PIXEL_PX = 8


class PaintOrGlass(nn.Module):
    """Another network with what it says of glass added to each tile's logit."""

    def __init__(self, network, glass_logit):
        super().__init__()
        self.network, self.glass_logit = network, nn.Parameter(torch.tensor(glass_logit))

    def forward(self, tiles):
        glass = (tiles.amin(dim=1, keepdim=True) > 225).float()
        return self.network(tiles) * (1 - glass).mean(dim=(2, 3)) + self.glass_logit * glass.mean(dim=(2, 3))


def at_map_pixels(record, shape, tissue):
    """Truth and tissue in the middle of each map pixel, one by one."""
    with Image.open(record["mask"]) as image:
        mask = np.asarray(image) > 0
    map_of_tissue = tissue.get(record["image"])
    truth, is_tissue = np.zeros(shape, bool), np.zeros(shape, bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            y, x = (row + 0.5) * MAP_PIXEL_PX, (column + 0.5) * MAP_PIXEL_PX
            if y < mask.shape[0] and x < mask.shape[1]:
                truth[row, column] = mask[int(y), int(x)]
            at = [
                min(int(p / map_of_tissue.pixel_px), side - 1) for p, side in zip((y, x), map_of_tissue.mask.shape, strict=True)
            ]
            is_tissue[row, column] = map_of_tissue.mask[at[0], at[1]]
    return truth, is_tissue


def reference(folder, records, tissue, alpha=ALPHA, threshold=THRESHOLD):
    """What ``metrics.json`` should hold, from the files, and each slide's row."""
    pixels, rows = {"pixels_tissue": [], "pixels_all": []}, []
    for record in records:
        name = record["image"].split("/")[-1].removesuffix(".tif")
        values = tifffile.imread(folder / "maps" / f"{name}.ome.tif", key=0)
        truth, is_tissue = at_map_pixels(record, values.shape, tissue)
        pixels["pixels_tissue"].append((truth[is_tissue], values[is_tissue]))
        pixels["pixels_all"].append((truth.ravel(), np.where(is_tissue, values, 0).ravel()))
        best = np.sort(values[is_tissue])[::-1][: max(1, math.floor(is_tissue.sum() * alpha + 1e-9))]
        rows.append({"slide": name, "label": record["label"], "score": best.mean() / 255, "tissue_share": is_tissue.mean()})
        for part, column in (("pixels_tissue", "tissue_auc"), ("pixels_all", "auc")):
            found = pixels[part][-1]
            rows[-1][column] = roc_auc_score(*found) if found[0].any() else None
    labels, scores = [row["label"] for row in rows], [row["score"] for row in rows]
    slides = {METHOD: {"auc": roc_auc_score(labels, scores)}}
    metrics = {"split": "test", "num_slides": len(rows), "threshold": threshold, "slides": slides}
    for part, of_slides in pixels.items():
        truth, values = (np.concatenate(arrays) for arrays in zip(*of_slides, strict=True))
        positive = values >= 255 * threshold
        metrics[part] = {
            METHOD: {
                "auc": roc_auc_score(truth, values),
                "mean_slide_auc": np.mean([roc_auc_score(*of_one) for of_one in of_slides if of_one[0].any()]),
                "mean_slide_iou": np.mean([jaccard_score(*pair) for pair in _decided(of_slides, threshold)]),
                "sensitivity": recall_score(truth, positive),
                "specificity": recall_score(~truth, ~positive),
                "accuracy": (truth == positive).mean(),
                "precision": precision_score(truth, positive, zero_division=0),
                "f1": 2 * (truth & positive).sum() / (truth.sum() + positive.sum()),
                "iou": (truth & positive).sum() / (truth | positive).sum(),
            },
            "Everything is tumour": {
                "auc": 0.5,
                "mean_slide_auc": 0.5,
                "mean_slide_iou": np.mean([true.mean() for true, _ in of_slides if true.any()]),
                "sensitivity": 1.0,
                "specificity": 0.0,
                "accuracy": truth.mean(),
                "precision": truth.mean(),
                "f1": 2 * truth.sum() / (truth.sum() + len(truth)),
                "iou": truth.mean(),
            },
        }
    return metrics, rows


def _decided(of_slides, threshold):
    """Truth and decision of every pixel, of each slide with tumour."""
    return [(truth, values >= 255 * threshold) for truth, values in of_slides if truth.any()]


def assert_same(found, expected):
    """Nested dictionaries of numbers."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_same(found[name], value)
        else:
            assert found[name] == pytest.approx(value), name


def table(folder):
    with (folder / "slides.csv").open(newline="") as file:
        return list(csv.DictReader(file))
