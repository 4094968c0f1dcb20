"""How trained networks are evaluated on images, whatever is counted on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..engines.distributed import over_dataset
from ..features.images import EmbeddedImages
from ..handlers.tracking import Tracking
from ..writers.figures.examples import ExampleRow
from .report import example_indices, example_title, write_report
from .table import PIXEL_TRUTH, score_table

# A row of ``images.csv``. Each evaluation has its own columns, and those of classes are named by the classes.
ImageRow = dict[str, Any]
Panels = dict[str, np.ndarray | None]


@dataclass(kw_only=True, eq=False)
class ImageEvaluation(ABC):
    """Scores networks on the images of a split; writes numbers, a row per image and a figure.

    Into `folder` go ``metrics.json``, ``images.csv`` and ``examples.png``. The processes of a distributed run share the images.
    Each kind of evaluation says what it counts on a batch (`count`), what the counts of all images say (`metrics`), and what
    its figure shows next to an image (`panels`).

    Args:
        folder: to write to.
        dataset: images of the split, whole; or their features, `shared.features.EmbeddedImages`, which networks of an encoder
            and a head take in their place.
        method: the network's name in the table.
        device: to compute on.
        batch_size: images per forward pass.
        num_workers: processes that read.
        num_examples: rows of the figure; 0 for no figure.
        tracking: MLflow runs to log to.
        split: name of the split.
    """

    folder: str | Path
    dataset: Dataset[Any]
    method: str
    device: torch.device | str
    batch_size: int = 4
    num_workers: int = 0
    num_examples: int = 6
    tracking: Tracking | None = None
    split: str = "test"

    @abstractmethod
    def count(self, batch: Mapping[str, Any]) -> Iterable[tuple[ImageRow, Any]]:
        """The row of ``images.csv`` for each image of a batch, and whatever else `metrics` and `panels` need."""

    @abstractmethod
    def metrics(self, rows: Sequence[ImageRow], counts: Sequence[Any]) -> dict[str, Any]:
        """The contents of ``metrics.json``, from `count` of all images in the data set's order; may add to the rows."""

    @abstractmethod
    def panels(self, example: Mapping[str, Any], row: ImageRow, counts: Any) -> Panels:
        """Title and pixels ``(H, W)`` of the pictures next to an image, from its item and what `count` gave.

        Args:
            example: its item of the data set, with the picture itself as ``image`` and what the network takes as ``inputs``.
            row: of the image.
            counts: the same.
        """

    def run(self) -> dict[str, Any]:
        """Evaluate, write the files, print the table; return what ``metrics.json`` holds."""
        num_workers = self.num_workers
        if isinstance(self.dataset, EmbeddedImages):
            # Features lie in this process' memory, and what is missing is computed once.
            self.dataset.run()
            num_workers = 0
        with torch.inference_mode():
            counted = over_dataset(self.dataset, self.count, self.batch_size, num_workers, "evaluation")
        rows, counts = [row for row, _ in counted], [count for _, count in counted]
        metrics = self.metrics(rows, counts)
        if getattr(self.dataset, "pixel_labels", None) == "label":
            metrics[PIXEL_TRUTH] = "label"
        title, table = f"{self.method}: examples of the {self.split} split", self.text(metrics)
        draw = partial(self.examples, rows, counts)
        write_report(
            Path(self.folder), metrics, self.image_rows(rows), draw, title, table, self.tracking, (self.split, self.method)
        )
        return metrics

    @torch.inference_mode()
    def examples(self, rows: Sequence[ImageRow], counts: Sequence[Any]) -> list[ExampleRow]:
        """The rows of the figure."""
        found = []
        for index in example_indices([row["label"] or 0 for row in rows], self.num_examples):
            example = self._example(index)
            panels = self.panels(example, rows[index], counts[index])
            found.append(ExampleRow(self.example_title(rows[index]), example["image"].permute(1, 2, 0).numpy(), panels))
        return found

    def _example(self, index: int) -> dict[str, Any]:
        item = self.dataset[index]
        picture = self.dataset.images[index]["image"] if isinstance(self.dataset, EmbeddedImages) else item["image"]
        return {**item, "image": picture, "inputs": item["image"]}

    def example_title(self, row: ImageRow) -> str:
        """The text next to an image of the figure."""
        return example_title(row)

    def image_rows(self, rows: Sequence[ImageRow]) -> pd.DataFrame:
        """The rows of ``images.csv``."""
        return pd.DataFrame(rows)

    def text(self, metrics: Mapping[str, Any]) -> str:
        """The table for a person."""
        return score_table(metrics, self.folder)

    def on_device(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` on the device, in the memory format that is fastest for convolutions."""
        return images.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
