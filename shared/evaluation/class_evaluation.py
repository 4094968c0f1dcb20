"""The closing table of a segmentation into several classes, and of its ``evaluate.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from ..data.image_dataset import RegionDataset
from ..engines.distributed import unwrap
from ..engines.inferers import fast_inferer
from ..metrics.classes import class_scores, confusion_matrix
from .class_report import compared_class_scores, confusion_row, everything_is, scores_of_class
from .image_evaluation import ImageEvaluation, ImageRow, Panels
from .report import example_title, image_columns, number


@dataclass(kw_only=True, eq=False)
class ClassEvaluation(ImageEvaluation):
    """`ImageEvaluation` of class maps of whole images, as the paper scores them.

    Pixels are pooled over all images. "Everything is <class 0>" is scored on the same pixels: where most of them are background,
    accuracies flatter it.

    Args:
        dataset: with ``pixel_labels: mask``; without, only the images' labels are scored.
        network: images to class logits ``(B, C, H, W)``, with ``classify(images)`` to class logits ``(B, C)``.
        class_names: C names; class 0 is background.
        classifies: False for a network whose classifier was not trained: images' labels are not scored.

    Reference:
        Ciga and Martel, section 3.2.
    """

    dataset: RegionDataset
    network: nn.Module
    class_names: Sequence[str]
    classifies: bool = True
    batch_size: int = 20
    num_examples: int = 8

    def count(self, batch: Mapping[str, Any]) -> Iterator[tuple[ImageRow, Tensor | None]]:
        """An image's row, and its confusion matrix ``(C, C)``, None without a mask."""
        infer, network = fast_inferer(SimpleInferer(), self.device), self._network()
        images = self.on_device(batch["image"])
        maps = infer(images, network).argmax(1).cpu()
        labels = infer(images, network.classify).argmax(1).tolist() if self.classifies else None
        for position, index in enumerate(batch["index"].tolist()):
            row, confusion = image_columns(self.dataset.data[index]), None
            if labels is not None:
                row["predicted_label"] = labels[position]
            if "mask" in batch:
                confusion = confusion_matrix(maps[position], batch["mask"][position, 0], len(self.class_names))
                row |= confusion_row(confusion, self.class_names)
            yield row, confusion

    def metrics(self, rows: Sequence[ImageRow], counts: Sequence[Any]) -> dict[str, Any]:
        names, num_classes = list(self.class_names), len(self.class_names)
        metrics: dict[str, Any] = {"split": self.split, "num_images": len(rows), "class_names": names}
        if self.dataset.pixel_labels is not None:
            of_images = torch.stack(list(counts))
            confusion = of_images.sum(0)
            # Of two classes both constant answers flatter somebody.
            constant = range(2) if num_classes == 2 else range(1)
            metrics["class_pixels"] = compared_class_scores(self.method, confusion, names, constant)
            metrics["classes"] = {name: scores_of_class(of_images, index) for index, name in enumerate(names)}
            if num_classes == 2:
                everything = torch.stack([everything_is(1, of_image) for of_image in of_images])
                metrics["classes"][f"everything is {names[1]}"] = scores_of_class(everything, 1)
            metrics["confusion"] = confusion.tolist()
        if self.classifies and all(row["label"] is not None for row in rows):
            predicted, true = (torch.tensor([row[name] for row in rows]) for name in ("predicted_label", "label"))
            scores = class_scores(confusion_matrix(predicted, true, num_classes))
            metrics["image_classes"] = {self.method: {name: number(scores[name]) for name in ("accuracy", "macro_f1")}}
        return metrics

    def panels(self, example: Mapping[str, Any], row: ImageRow, counts: Any) -> Panels:
        logits = self._network()(example["inputs"][None].to(self.device))
        truth = example["mask"][0].numpy() if "mask" in example else None
        return {"truth": truth, self.method: logits[0].argmax(0).byte().cpu().numpy()}

    def example_title(self, row: ImageRow) -> str:
        return example_title({**row, "label": "?" if row["label"] is None else self.class_names[row["label"]]})

    def _network(self) -> Any:
        return unwrap(self.network).to(self.device).eval()
