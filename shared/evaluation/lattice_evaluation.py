"""The closing table of CAMEL, and of its ``evaluate.json``: instance labels and pixels against the truth of a split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ..data.image_dataset import RegionDataset
from ..data.labels.enriched_labels import decode_instances
from ..data.labels.lattice import instance_labels_of_masks, paint_instances
from ..engines.distributed import unwrap
from ..engines.inferers import LatticeInferer, encoded
from ..metrics.binary import binary_counts
from ..networks.encoded.encoded_network import EncodedNetwork
from ..networks.probabilities import tumour_probability
from .image_evaluation import ImageEvaluation, ImageRow, Panels
from .report import COUNTS, everything_is_tumour, image_columns, image_table, pixel_scores, pooled_scores


@dataclass(frozen=True)
class LatticeCounts:
    """The counts of one image beyond its row.

    Attributes:
        logits: of each classifier, of every instance, ``(N * N,)``.
        instances: true labels ``(N * N,)``; None without a mask.
    """

    logits: dict[str, Tensor]
    instances: Tensor | None


@dataclass(kw_only=True, eq=False)
class LatticeEvaluation(ImageEvaluation):
    """`ImageEvaluation` of classifiers on instances and of a segmentation network on pixels.

    Pixels are pooled over all images, as in CAMEL's tables; "everything is tumour" is scored alongside the network on the same
    pixels, because overlap measures alone can flatter it.

    Args:
        dataset: with ``pixel_labels: mask``; without, only the images' labels are scored.
        segmenter: the segmentation network: images to logits ``(B, 2, H, W)`` or ``(B, 1, H, W)``.
        classifiers: name in the table -> instance classifier; those that are None are left out.
        instances_per_side: N.
        enriched_by: which of the classifiers draws the figure's "enriched labels"; without it the column is empty.
        training_labels: data set of the *training* images with masks and ``instances``, to score the enriched labels themselves
            (CAMEL, Table 2); None to leave that row out.
        method: the segmentation's name in the table.
        threshold: a probability of the segmentation's of at least this much is tumour; classifiers decide at 0.5.
    """

    dataset: RegionDataset
    segmenter: nn.Module
    classifiers: Mapping[str, nn.Module | None]
    instances_per_side: int
    enriched_by: str = "Retrain"
    training_labels: RegionDataset | None = None
    method: str = "Segmentation"
    threshold: float = 0.5

    def count(self, batch: Mapping[str, Any]) -> Iterator[tuple[ImageRow, LatticeCounts]]:
        inputs = self._encoded_once(batch["image"])
        probability = self._probability(inputs)
        logits = self._logits(inputs)
        for position, index in enumerate(batch["index"].tolist()):
            row = image_columns(self.dataset.data[index]) | {"max_probability": float(probability[position].max())}
            instances = None
            if "mask" in batch:
                mask = batch["mask"][position]
                instances = instance_labels_of_masks(mask[None], self.instances_per_side)[0]
                counts = binary_counts(probability[position] >= self.threshold, mask[0])
                row |= dict(zip(COUNTS, counts.tolist(), strict=True))
            yield row, LatticeCounts({name: scores[position] for name, scores in logits.items()}, instances)

    def metrics(self, rows: Sequence[ImageRow], counts: Sequence[LatticeCounts]) -> dict[str, Any]:
        logits = {name: torch.stack([image.logits[name] for image in counts]) for name in counts[0].logits}
        labels = torch.tensor([int(row["label"] > 0) for row in rows])
        highest = {name: scores.amax(1).sigmoid() for name, scores in logits.items()}
        highest[self.method] = torch.tensor([row["max_probability"] for row in rows])
        at = dict.fromkeys(logits, 0.5) | {self.method: self.threshold}
        metrics: dict[str, Any] = {
            "split": self.split,
            "num_images": len(rows),
            "threshold": self.threshold,
            "images": {name: pooled_scores(binary_counts(score >= at[name], labels)) for name, score in highest.items()},
        }
        if self.dataset.pixel_labels is not None:
            truth = torch.stack([image.instances for image in counts if image.instances is not None])
            metrics["instances"] = {name: pooled_scores(binary_counts(values >= 0, truth)) for name, values in logits.items()}
            if self.training_labels is not None:
                enriched = enriched_label_counts(self.training_labels, self.instances_per_side)
                metrics["instances"]["Enriched labels (train)"] = pooled_scores(enriched)
            pixels = torch.tensor([[row[name] for name in COUNTS] for row in rows])
            metrics["pixels"] = {
                self.method: pixel_scores(pixels),
                "Everything is tumour": pixel_scores(everything_is_tumour(pixels)),
            }
        return metrics

    def panels(self, example: Mapping[str, Any], row: ImageRow, counts: LatticeCounts) -> Panels:
        enriched = counts.logits.get(self.enriched_by)
        if enriched is not None:
            enriched = paint_instances((enriched >= 0).float(), *example["image"].shape[-2:])[0]
        return {
            "truth": example["mask"][0].numpy() if "mask" in example else None,
            "enriched labels": None if enriched is None else enriched.numpy(),
            "prediction": self._probability(example["inputs"][None])[0].numpy(),
        }

    def image_rows(self, rows: Sequence[ImageRow]) -> pd.DataFrame:
        return image_table(rows)

    def _encoded_once(self, images: Tensor) -> Tensor:
        """Features of images where all networks have the same frozen encoder, so that it runs once; else the images."""
        networks = [unwrap(network) for network in (self.segmenter, *self.classifiers.values()) if network is not None]
        keys = {network.frozen_key if isinstance(network, EncodedNetwork) else None for network in networks}
        if len(keys) != 1 or None in keys:
            return images
        encoder: Any = networks[0].to(self.device).eval()
        return encoded(self.on_device(images), encoder)

    def _probability(self, images: Tensor) -> Tensor:
        """``(B, H, W)`` on the CPU."""
        network = unwrap(self.segmenter).to(self.device).eval()
        return tumour_probability(network(self.on_device(images))).cpu()

    def _logits(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each classifier, ``(B, N * N)``, on the CPU."""
        score, images = LatticeInferer(self.instances_per_side), images.to(self.device)
        networks = {name: unwrap(network) for name, network in self.classifiers.items() if network is not None}
        return {name: score(images, network.to(self.device).eval()).cpu() for name, network in networks.items()}


def enriched_label_counts(dataset: RegionDataset, instances_per_side: int) -> Tensor:
    """Counts ``(4,)`` of a training set's enriched labels (its records' ``instances``) against its masks."""
    total = torch.zeros(4, dtype=torch.long)
    for index, record in enumerate(dataset.data):
        mask = dataset.targets(index, dataset.image_size(index))["mask"]
        truth = instance_labels_of_masks(mask[None], instances_per_side)[0]
        total += binary_counts(decode_instances(record["instances"]), truth)
    return total
