"""The closing table of CAMEL, and of its ``evaluate.json``: instance labels and pixels against the truth of a split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from ..data.image_dataset import RegionDataset
from ..data.labels.enriched_labels import decode_instances, encode_instances
from ..data.labels.lattice import instance_labels_of_masks, paint_instances
from ..engines.distributed import barrier, gather_in_order, num_processes, rank, unwrap
from ..engines.label_enrichment import LatticeScorer
from ..handlers.tracking import Tracking
from ..metrics.binary import binary_counts
from ..networks.probabilities import tumour_probability
from ..writers.figures.examples import ExampleRow
from .report import (
    COUNTS,
    REGION,
    everything_is_tumour,
    example_indices,
    example_title,
    image_table,
    pixel_scores,
    pooled_scores,
    write_report,
)
from .table import score_table


class LatticeEvaluation:
    """Scores classifiers on instances and a segmentation network on pixels; writes numbers, a row an image and a figure.

    Into `folder` go ``metrics.json``, ``images.csv`` and ``examples.png``. Pixels are pooled over all images, as in CAMEL's
    tables; "everything is tumour" is scored beside the network on the same pixels, because overlap measures alone can
    flatter it.

    Args:
        folder: to write to.
        dataset: images of the split, whole, with ``pixel_labels: mask``; without pixel labels only the images' labels are scored.
        segmenter: the segmentation network: images to logits ``(B, 2, H, W)`` or ``(B, 1, H, W)``.
        classifiers: name in the table -> instance classifier; those that are None are left out.
        instances_per_side: N.
        device: to compute on.
        batch_size: images a forward pass.
        num_workers: processes that read.
        enriched_by: which of the classifiers draws the figure's "enriched labels"; without it the column is empty.
        training_labels: data set of the *training* images with masks and ``instances``, to score the enriched labels themselves
            (CAMEL, Table 2); None to leave that row out.
        method: the segmentation's name in the table.
        num_examples: rows of the figure; 0 for no figure.
        tracking: MLflow runs to log to.
        split: name of the split, for ``metrics.json``.
    """

    def __init__(
        self,
        folder: str | Path,
        dataset: RegionDataset,
        segmenter: nn.Module,
        classifiers: Mapping[str, nn.Module | None],
        instances_per_side: int,
        device: torch.device | str,
        batch_size: int = 4,
        num_workers: int = 0,
        enriched_by: str = "Retrain",
        training_labels: RegionDataset | None = None,
        method: str = "CAMEL",
        num_examples: int = 6,
        tracking: Tracking | None = None,
        split: str = "test",
    ) -> None:
        self.folder, self.dataset, self.segmenter = Path(folder), dataset, segmenter
        self.classifiers = {name: network for name, network in classifiers.items() if network is not None}
        self.instances_per_side, self.device = instances_per_side, torch.device(device)
        self.batch_size, self.num_workers = batch_size, num_workers
        self.enriched_by, self.training_labels, self.method = enriched_by, training_labels, method
        self.num_examples, self.tracking, self.split = num_examples, tracking, split
        self.score_lattices = LatticeScorer(dataset, instances_per_side, device, batch_size, num_workers)

    def run(self) -> dict[str, Any]:
        """Evaluate, write the files, print the table; return what ``metrics.json`` holds."""
        logits = {name: self.score_lattices(network, title=name) for name, network in self.classifiers.items()}
        images = self._images()
        labels = torch.tensor([int(row["label"] > 0) for row in images])
        highest = {name: scores.amax(1).sigmoid() for name, scores in logits.items()}
        highest[self.method] = torch.tensor([row["max_probability"] for row in images])
        metrics: dict[str, Any] = {
            "split": self.split,
            "num_images": len(images),
            "images": {name: pooled_scores(binary_counts(score >= 0.5, labels)) for name, score in highest.items()},
        }
        if self.dataset.pixel_labels is not None:
            metrics["instances"] = self._instance_scores(logits, [row.pop("instances") for row in images])
            counts = torch.tensor([[row[name] for name in COUNTS] for row in images])
            metrics["pixels"] = {
                self.method: pixel_scores(counts),
                "Everything is tumour": pixel_scores(everything_is_tumour(counts)),
            }
        if rank() == 0:
            self._write(metrics, images, logits.get(self.enriched_by))
        barrier()
        return metrics

    def _instance_scores(self, logits: Mapping[str, Tensor], truth: list[str]) -> dict[str, dict[str, float | None]]:
        labels = torch.stack([decode_instances(instances) for instances in truth])
        scores = {name: pooled_scores(binary_counts(values >= 0, labels)) for name, values in logits.items()}
        if self.training_labels is not None:
            counts = enriched_label_counts(self.training_labels, self.instances_per_side)
            scores["Enriched labels (train)"] = pooled_scores(counts)
        return scores

    @torch.inference_mode()
    def _images(self) -> list[dict[str, Any]]:
        """A row an image, in the data set's order: its pixel counts, true instances and highest probability."""
        network = unwrap(self.segmenter).to(self.device).eval()
        share = Subset(self.dataset, range(rank(), len(self.dataset), num_processes()))
        rows: list[dict[str, Any]] = []
        loader = DataLoader(share, self.batch_size, num_workers=self.num_workers)
        for batch in tqdm(loader, desc="segmentation", unit="batch", disable=None if rank() == 0 else True, leave=False):
            probability = tumour_probability(network(_channels_last(batch["image"].to(self.device)))).cpu()
            for position, index in enumerate(batch["index"].tolist()):
                row = {name: self.dataset.data[index].get(name) for name in REGION}
                row["max_probability"] = float(probability[position].max())
                if "mask" in batch:
                    mask = batch["mask"][position]
                    counts = binary_counts(probability[position] >= 0.5, mask[0])
                    instances = instance_labels_of_masks(mask[None], self.instances_per_side)[0]
                    row |= dict(zip(COUNTS, counts.tolist(), strict=True)) | {"instances": encode_instances(instances)}
                rows.append(row)
        return gather_in_order(rows)

    def _write(self, metrics: dict[str, Any], images: list[dict[str, Any]], enriched: Tensor | None) -> None:
        write_report(
            self.folder,
            metrics,
            image_table(images),
            self._examples(enriched),
            title=f"{self.method}: examples of the {self.split} split",
            table=score_table(metrics, self.folder),
            tracking=self.tracking,
        )

    @torch.inference_mode()
    def _examples(self, enriched: Tensor | None) -> list[ExampleRow]:
        network = unwrap(self.segmenter)
        rows = []
        for index in example_indices([record["label"] for record in self.dataset.data], self.num_examples):
            item = self.dataset[index]
            image, mask = item["image"], item.get("mask")
            probability = tumour_probability(network(_channels_last(image[None].to(self.device))))[0].cpu()
            labels = None
            if enriched is not None:
                labels = paint_instances((enriched[index] >= 0).float(), *image.shape[-2:])[0].numpy()
            panels = {
                "truth": None if mask is None else mask[0].numpy(),
                "enriched labels": labels,
                "prediction": probability.numpy(),
            }
            rows.append(ExampleRow(example_title(self.dataset.data[index]), image.permute(1, 2, 0).numpy(), panels))
        return rows


def enriched_label_counts(dataset: RegionDataset, instances_per_side: int) -> Tensor:
    """Counts ``(4,)`` of a training set's enriched labels (its records' ``instances``) against its masks."""
    total = torch.zeros(4, dtype=torch.long)
    for index in range(len(dataset)):
        truth = instance_labels_of_masks(dataset[index]["mask"][None], instances_per_side)[0]
        total += binary_counts(decode_instances(dataset.data[index]["instances"]), truth)
    return total


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
