"""The closing table of a segmentation into several classes, and of its ``evaluate.json``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from ..data.image_dataset import RegionDataset
from ..engines.distributed import barrier, gather_in_order, num_processes, rank, unwrap
from ..engines.inferers import fast_inferer
from ..handlers.tracking import Tracking
from ..metrics.classes import class_scores, confusion_matrix
from ..writers.figures.examples import ExampleRow
from .class_report import compared_class_scores, confusion_row, everything_is, scores_of_class
from .report import REGION, example_indices, example_title, number, write_report
from .table import score_table


class ClassEvaluation:
    """Scores class maps of whole images as the paper does; writes numbers, a row an image and a figure.

    Into `folder` go ``metrics.json``, ``images.csv`` and ``examples.png``. Pixels are pooled over all images. "Everything is
    <class 0>" is scored on the same pixels: where most of them are background, accuracies flatter it.

    Args:
        folder: to write to.
        dataset: images of the split, whole, with ``pixel_labels: mask``; without, only the images' labels are scored.
        network: images to class logits ``(B, C, H, W)``, with ``classify(images)`` to class logits ``(B, C)``.
        class_names: C names; class 0 is background.
        method: the network's name in the table.
        device: to compute on.
        batch_size: images a forward pass.
        num_workers: processes that read.
        classifies: False for a network whose classifier was not trained: images' labels are not scored.
        num_examples: rows of the figure; 0 for no figure.
        tracking: MLflow runs to log to.
        split: name of the split, for ``metrics.json``.

    Reference:
        Ciga and Martel, section 3.2.
    """

    def __init__(
        self,
        folder: str | Path,
        dataset: RegionDataset,
        network: nn.Module,
        class_names: Sequence[str],
        method: str,
        device: torch.device | str,
        batch_size: int = 20,
        num_workers: int = 0,
        classifies: bool = True,
        num_examples: int = 8,
        tracking: Tracking | None = None,
        split: str = "test",
    ) -> None:
        self.folder, self.dataset, self.network = Path(folder), dataset, network
        self.class_names, self.method, self.device = list(class_names), method, torch.device(device)
        self.batch_size, self.num_workers, self.classifies = batch_size, num_workers, classifies
        self.num_examples, self.tracking, self.split = num_examples, tracking, split

    def run(self) -> dict[str, Any]:
        """Evaluate, write the files, print the table; return what ``metrics.json`` holds."""
        rows = self._images()
        num_classes = len(self.class_names)
        metrics: dict[str, Any] = {"split": self.split, "num_images": len(rows), "class_names": self.class_names}
        if self.dataset.pixel_labels is not None:
            of_images = torch.tensor([row.pop("confusion") for row in rows])
            confusion = of_images.sum(0)
            # Of two classes both constant answers flatter somebody.
            constant = range(2) if num_classes == 2 else range(1)
            metrics["class_pixels"] = compared_class_scores(self.method, confusion, self.class_names, constant)
            metrics["classes"] = {name: scores_of_class(of_images, index) for index, name in enumerate(self.class_names)}
            if num_classes == 2:
                everything = torch.stack([everything_is(1, of_image) for of_image in of_images])
                metrics["classes"][f"everything is {self.class_names[1]}"] = scores_of_class(everything, 1)
            metrics["confusion"] = confusion.tolist()
        if self.classifies and all(row["label"] is not None for row in rows):
            predicted, true = (torch.tensor([row[name] for row in rows]) for name in ("predicted_label", "label"))
            scores = class_scores(confusion_matrix(predicted, true, num_classes))
            metrics["image_classes"] = {self.method: {name: number(scores[name]) for name in ("accuracy", "macro_f1")}}
        if rank() == 0:
            title = f"{self.method}: examples of the {self.split} split"
            table = score_table(metrics, self.folder)
            write_report(self.folder, metrics, pd.DataFrame(rows), self._examples(), title, table, self.tracking)
        barrier()
        return metrics

    @torch.inference_mode()
    def _images(self) -> list[dict[str, Any]]:
        """A row an image, in the data set's order."""
        share = Subset(self.dataset, range(rank(), len(self.dataset), num_processes()))
        loader = DataLoader(share, self.batch_size, num_workers=self.num_workers)
        infer = fast_inferer(SimpleInferer(), self.device)
        network: Any = unwrap(self.network).to(self.device).eval()
        rows: list[dict[str, Any]] = []
        for batch in tqdm(loader, desc="evaluation", unit="batch", disable=None if rank() == 0 else True, leave=False):
            images = batch["image"].to(self.device).contiguous(memory_format=torch.channels_last)
            maps = infer(images, network).argmax(1).cpu()
            labels = infer(images, network.classify).argmax(1).tolist() if self.classifies else None
            for position, index in enumerate(batch["index"].tolist()):
                row = {name: self.dataset.data[index].get(name) for name in REGION}
                if labels is not None:
                    row["predicted_label"] = labels[position]
                if "mask" in batch:
                    row |= self._scores(maps[position], batch["mask"][position, 0])
                rows.append(row)
        return gather_in_order(rows)

    def _scores(self, prediction: Tensor, mask: Tensor) -> dict[str, Any]:
        """Of one image: its confusion matrix, accuracy and score, and each class's true and predicted share."""
        confusion = confusion_matrix(prediction, mask, len(self.class_names))
        return {"confusion": confusion.tolist()} | confusion_row(confusion, self.class_names)

    @torch.inference_mode()
    def _examples(self) -> list[ExampleRow]:
        network = unwrap(self.network).to(self.device).eval()
        rows = []
        for index in example_indices([record.get("label") or 0 for record in self.dataset.data], self.num_examples):
            example = self.dataset[index]
            logits = network(example["image"][None].to(self.device))
            panels: dict[str, np.ndarray | None] = {
                "truth": example["mask"][0].numpy() if "mask" in example else None,
                self.method: logits[0].argmax(0).byte().cpu().numpy(),
            }
            label = self.dataset.data[index].get("label")
            title = example_title({**self.dataset.data[index], "label": "?" if label is None else self.class_names[label]})
            rows.append(ExampleRow(title, example["image"].permute(1, 2, 0).numpy(), panels))
        return rows
