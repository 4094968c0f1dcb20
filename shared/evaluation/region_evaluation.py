"""The closing table of CDWS-MIL, and of its ``evaluate.json``: regions, boundaries and pixels of every map against the masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from ..data.image_dataset import RegionDataset
from ..engines.distributed import barrier, gather_in_order, num_processes, rank, unwrap
from ..handlers.tracking import Tracking
from ..losses.power_mean import log_generalized_mean
from ..losses.superpixels import superpixel_means
from ..metrics.binary import binary_counts
from ..metrics.boundary import BOUNDARY_THRESHOLDS, boundary_counts, ods_of_counts
from ..metrics.region import region_f_measure
from ..writers.figures.examples import ExampleRow
from .report import (
    COUNTS,
    REGION,
    everything_is_tumour,
    example_indices,
    example_title,
    image_table,
    number,
    pixel_scores,
    pooled_scores,
    write_report,
)
from .table import score_table

THRESHOLD = 0.5


class RegionEvaluation:
    """Scores every side output and their fusion as the paper does; writes numbers, a row an image and a figure.

    Into `folder` go ``metrics.json``, ``images.csv`` (counts and scores of the fusion) and ``examples.png``. Region F is a mean
    over images, of tumour images (CA), of the others (NC) and of all; boundary ODS is of tumour images; pixels are pooled over
    all images, and "everything is tumour" is scored on them too.

    Args:
        folder: to write to.
        dataset: images of the split, whole, with ``pixel_labels: mask``; without, only the images' labels are scored. With
            super-pixels, a map's values are their means.
        network: with ``maps(images)``, the probabilities ``(B, T + 1, H, W)`` of T side outputs and, last, of their fusion; a
            segmentation network as `shared.evaluation.ProbabilityMaps`. Where it has ``image_probability(images)``, ``(B,)``,
            that decides the image's label, else the generalised mean of the fusion.
        method: the fusion's name in the table.
        device: to compute on.
        batch_size: images a forward pass.
        num_workers: processes that read.
        generalized_mean_r: r of an image's own probability (equation 2).
        num_examples: rows of the figure; 0 for no figure.
        tracking: MLflow runs to log to.
        split: name of the split, for ``metrics.json``.

    Reference:
        Jia et al., IEEE TMI 2017, section V.B and tables II to VI.
    """

    def __init__(
        self,
        folder: str | Path,
        dataset: RegionDataset,
        network: nn.Module,
        method: str,
        device: torch.device | str,
        batch_size: int = 4,
        num_workers: int = 0,
        generalized_mean_r: float = 4.0,
        num_examples: int = 6,
        tracking: Tracking | None = None,
        split: str = "test",
    ) -> None:
        self.split = split
        self.folder, self.dataset, self.network, self.method = Path(folder), dataset, network, method
        self.device, self.batch_size, self.num_workers = torch.device(device), batch_size, num_workers
        self.generalized_mean_r, self.num_examples, self.tracking = generalized_mean_r, num_examples, tracking

    def run(self) -> dict[str, Any]:
        """Evaluate, write the files, print the table; return what ``metrics.json`` holds."""
        rows = self._images()
        maps = [row.pop("maps") for row in rows]
        is_tumour = torch.tensor([row["label"] > 0 for row in rows])
        decided = torch.tensor([row["image_probability"] for row in rows]) >= THRESHOLD
        metrics: dict[str, Any] = {
            "split": self.split,
            "num_images": len(rows),
            "images": {self.method: pooled_scores(binary_counts(decided, is_tumour))},
        }
        if self.dataset.pixel_labels is not None:
            names = self._names(len(maps[0]))
            scores = {name: [image[index] for image in maps] for index, name in enumerate(names)}
            metrics["regions"] = {name: region_scores(images, is_tumour) for name, images in scores.items()}
            metrics["boundaries"] = {name: _boundary_scores(images) for name, images in scores.items()}
            counts = {name: torch.tensor([image["counts"] for image in images]) for name, images in scores.items()}
            metrics["pixels"] = {name: pixel_scores(values) for name, values in counts.items()}
            metrics["pixels"]["Everything is tumour"] = pixel_scores(everything_is_tumour(counts[self.method]))
        if rank() == 0:
            title = f"{self.method}: examples of the {self.split} split"
            table = score_table(metrics, self.folder)
            write_report(self.folder, metrics, image_table(rows), self._examples(), title, table, self.tracking)
        barrier()
        return metrics

    def _names(self, num_maps: int) -> list[str]:
        """Of the maps in the table; a single side output is its own fusion."""
        stages: Any = unwrap(self.network).side_outputs
        return [*(f"Side output {stage}" for stage in stages if num_maps > 1), self.method]

    @torch.inference_mode()
    def _images(self) -> list[dict[str, Any]]:
        """A row an image, in the data set's order, with what each map scored in ``maps``."""
        share = Subset(self.dataset, range(rank(), len(self.dataset), num_processes()))
        loader = DataLoader(share, self.batch_size, num_workers=self.num_workers)
        rows: list[dict[str, Any]] = []
        for batch in tqdm(loader, desc="evaluation", unit="batch", disable=None if rank() == 0 else True, leave=False):
            maps = self._maps(batch["image"], batch.get("superpixels"))
            image_probability = self._image_probability(batch["image"], maps)
            for position, index in enumerate(batch["index"].tolist()):
                row = {name: self.dataset.data[index].get(name) for name in REGION}
                row["max_probability"] = float(maps[position, -1].max())
                row["image_probability"] = round(float(image_probability[position]), 6)
                row["maps"] = []
                if "mask" in batch:
                    row["maps"] = [score_map(image, batch["mask"][position, 0], row["label"]) for image in maps[position]]
                    row |= dict(zip(COUNTS, row["maps"][-1]["counts"], strict=True))
                    row["region_f"] = round(row["maps"][-1]["f"], 6)
                rows.append(row)
        return gather_in_order(rows)

    def _image_probability(self, images: Tensor, maps: Tensor) -> Tensor:
        """``(B,)``, by the network's own word or from its maps ``(B, T + 1, H, W)``."""
        network: Any = unwrap(self.network)
        if hasattr(network, "image_probability"):
            return network.image_probability(images.to(self.device).contiguous(memory_format=torch.channels_last)).float().cpu()
        log_fusion = maps[:, -1].clamp_min(torch.finfo(maps.dtype).tiny).log()
        return log_generalized_mean(log_fusion, self.generalized_mean_r).exp()

    def _maps(self, images: Tensor, superpixels: Tensor | None) -> Tensor:
        """``(B, T + 1, H, W)`` on the CPU, or ``(B, 1, H, W)`` of a network with one side output."""
        network: Any = unwrap(self.network).to(self.device).eval()
        maps = network.maps(images.to(self.device).contiguous(memory_format=torch.channels_last))
        maps = maps[:, -1:] if maps.shape[1] == 2 else maps
        if superpixels is not None:
            maps = _superpixel_maps(maps, superpixels.to(self.device))
        return maps.float().cpu()

    @torch.inference_mode()
    def _examples(self) -> list[ExampleRow]:
        rows = []
        for index in example_indices([record["label"] for record in self.dataset.data], self.num_examples):
            example = self.dataset[index]
            superpixels = example["superpixels"][None] if "superpixels" in example else None
            maps = self._maps(example["image"][None], superpixels)[0].numpy()
            truth = example["mask"][0].numpy() if "mask" in example else None
            panels = {"truth": truth} | dict(zip(self._names(len(maps)), maps, strict=True))
            pixels = example["image"].permute(1, 2, 0).numpy()
            rows.append(ExampleRow(example_title(self.dataset.data[index]), pixels, panels))
        return rows


def _superpixel_maps(maps: Tensor, superpixels: Tensor) -> Tensor:
    """Every pixel of ``(B, C, H, W)`` gets the mean of its super-pixel, whose ids are ``(B, 1, H, W)``."""
    means, _ = superpixel_means(maps, superpixels)
    ids = superpixels.long().flatten(2).expand(-1, maps.shape[1], -1)
    return means.gather(2, ids).reshape(maps.shape)


def score_map(probability: Tensor, mask: Tensor, label: int) -> dict[str, Any]:
    """What one map ``(H, W)`` of one image scores: pixel counts, region F, mean probability and, of tumour, boundary counts."""
    decided = probability >= THRESHOLD
    return {
        "counts": binary_counts(decided, mask).tolist(),
        "f": float(region_f_measure(decided, mask, torch.tensor(int(label > 0)))),
        "mean_probability": float(probability.mean()),
        "boundary": boundary_counts(probability.numpy(), mask.numpy()) if label > 0 else None,
    }


def region_scores(images: Sequence[dict[str, Any]], is_tumour: Tensor) -> dict[str, float | None]:
    """Means over images of what `score_map` gives: region F of CA, NC and all images; of CA also predicted and true areas, and
    the mean probability, which is what the area constraint bounds."""
    f = torch.tensor([image["f"] for image in images], dtype=torch.float64)
    means = torch.tensor([image["mean_probability"] for image in images], dtype=torch.float64)
    counts = torch.tensor([image["counts"] for image in images], dtype=torch.float64)
    tp, fp, fn, _ = counts.unbind(1)
    pixels = counts.sum(1)
    return {
        "f_ca": number(f[is_tumour].mean()),
        "f_nc": number(f[~is_tumour].mean()),
        "f_all": number(f.mean()),
        "predicted_area_ca": number(((tp + fp) / pixels)[is_tumour].mean()),
        "mean_probability_ca": number(means[is_tumour].mean()),
        "true_area_ca": number(((tp + fn) / pixels)[is_tumour].mean()),
    }


def _boundary_scores(images: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    counts = [image["boundary"] for image in images if image["boundary"] is not None]
    if not counts:
        return {"ods": None, "precision": None, "recall": None, "threshold": None}
    score = ods_of_counts(np.sum(counts, axis=0), BOUNDARY_THRESHOLDS)
    return {"ods": score.f, "precision": score.precision, "recall": score.recall, "threshold": score.threshold}
