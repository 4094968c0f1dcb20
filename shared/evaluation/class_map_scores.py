"""Scores of finished maps of several classes against masks or annotation files, in memory that grows with no slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..data.image_dataset import record_error
from ..data.tissue_cache import TissueCache
from ..inference.outputs.map_file import ClassMapFile
from ..metrics.classes import class_scores, confusion_matrix
from ..metrics.ranking import roc_auc_of_histograms, score_histograms
from .class_report import compared_class_scores, confusion_row, scores_of_class
from .map_cohort import MapCohort, Record, slide_name
from .report import number, pooled_scores

# Part of the pixels -> what the metrics of classes in it are called, and the confusion matrix.
PARTS = {"tissue": ("class_pixels", "confusion"), "all": ("class_pixels_all", "confusion_all")}


class ClassMapScores:
    """Pixel scores of the maps of several classes in a folder that `SlideMapper` has filled.

    Pixels are those of the maps, and each is of the class that is likeliest there (of equal ones the first; class 0 where no
    tile was mapped). They are scored twice: in tissue only, and with the background, which is of class 0 whatever the map says
    of it. Tumour is all that is not class 0; its AUC against class 0 is that of 1 - P(class 0), exact for the 256 values that a
    map can have.

    Args:
        maps: the folder, with its ``slides.csv``.
        records: of whole slides, see `load_manifest`. Those with a mask and those with label 0 are scored, others left out.
        tissue: where the slides' tissue is found.
        class_names: of the maps, class 0 first. Annotation files use these names, mask images the indices.
        method: what the table calls the maps.
        allow_missing: leave out slides that have no finished map; they are an error otherwise.

    Raises:
        ValueError: as `MapCohort`, and for fewer than three classes.

    Reference:
        Ciga and Martel, section 3.2, see `class_scores`.
    """

    def __init__(
        self,
        maps: str | Path,
        records: Sequence[Record],
        tissue: TissueCache,
        class_names: Sequence[str],
        method: str = "Maps",
        allow_missing: bool = False,
    ) -> None:
        if len(class_names) < 3:
            raise ValueError(f"need three classes or more, got {list(class_names)}: maps of tumour are for MapScores")
        self.class_names, self.method = list(class_names), method
        self.cohort = MapCohort(maps, records, tissue, self.class_names, allow_missing)

    def run(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Metrics of the cohort, and a row a slide.

        Raises:
            ValueError: naming manifest, row and file of a mask, a map or a slide that cannot be read.
        """
        self.cohort.check_masks()
        slides, rows = [], []
        for record in tqdm(self.cohort.records, "scoring maps", unit="slide", disable=None):
            try:
                slides.append(self._count(record))
            except (ValueError, OSError) as error:
                raise record_error(record, error) from error
            rows.append(self._slide_row(record, *slides[-1]))
        confusions = {part: torch.stack([confusion[part] for confusion, _ in slides]) for part in PARTS}
        histograms = {part: torch.stack([histogram[part] for _, histogram in slides]).sum(0) for part in PARTS}
        return self._metrics(confusions, histograms), rows

    def _count(self, record: Record) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Of tissue and of all pixels of a slide: confusion matrix ``(C, C)`` and histograms of tumour ``(2, 256)``."""
        num_classes = len(self.class_names)
        confusion = {part: torch.zeros(num_classes, num_classes, dtype=torch.int64) for part in PARTS}
        histograms = {part: torch.zeros(2, 256, dtype=torch.int64) for part in PARTS}
        with ClassMapFile(self.cohort.path(record), num_classes) as source:
            for top, *strip in self.cohort.strips(record, source.shape):
                truth, tissue = (torch.from_numpy(part) for part in strip)
                decisions = source.read_decisions(top, top + len(truth))
                classes, tumour = (torch.from_numpy(part).masked_fill_(~tissue, 0) for part in decisions)
                for part, kept in (("tissue", tissue), ("all", torch.ones_like(tissue))):
                    confusion[part] += confusion_matrix(classes[kept], truth[kept], num_classes)
                    histograms[part] += score_histograms(tumour[kept], truth[kept] > 0)
        return confusion, histograms

    def _slide_row(self, record: Record, confusion: Mapping[str, Tensor], histograms: Mapping[str, Tensor]) -> dict[str, Any]:
        """What one slide scores: its tissue, unless the name says otherwise."""
        counts = confusion["tissue"]
        scores = class_scores(counts)
        return {
            "slide": slide_name(record),
            "label": record["label"],
            "num_pixels": int(counts.sum()),
            "tissue_auc": number(roc_auc_of_histograms(histograms["tissue"])),
            "auc": number(roc_auc_of_histograms(histograms["all"])),
            **confusion_row(counts, self.class_names),
            **{f"f1_{name}": number(scores[f"f1_{index}"]) for index, name in enumerate(self.class_names)},
            "confusion": counts.tolist(),
        }

    def _metrics(self, confusions: Mapping[str, Tensor], histograms: Mapping[str, Tensor]) -> dict[str, Any]:
        """Of confusion matrices ``(num_slides, C, C)`` and pooled histograms."""
        pooled = {part: confusions[part].sum(0) for part in PARTS}
        true = pooled["all"].sum(1)
        metrics: dict[str, Any] = {
            "num_slides": len(self.cohort.records),
            "num_missing": self.cohort.num_missing,
            "num_without_truth": self.cohort.num_without_truth,
            "class_names": self.class_names,
            "classes_without_truth": [name for index, name in enumerate(self.class_names) if not true[index]],
        }
        for part, (kind, name) in PARTS.items():
            metrics[kind] = compared_class_scores(self.method, pooled[part], self.class_names)
            metrics[name] = pooled[part].tolist()
        names = enumerate(self.class_names)
        metrics["classes"] = {name: scores_of_class(confusions["tissue"], index) for index, name in names}
        for part in PARTS:
            auc = number(roc_auc_of_histograms(histograms[part]))
            metrics[f"pixels_{part}"] = {"auc": auc, **pooled_scores(tumour_counts(pooled[part]))}
        return metrics


def tumour_counts(confusion: Tensor) -> Tensor:
    """Tp, fp, fn, tn of "not class 0", ``(4,)``, from a confusion matrix, true class down.

    >>> tumour_counts(torch.tensor([[5, 1, 0], [2, 3, 1], [0, 1, 4]]))
    tensor([9, 1, 2, 5])
    """
    return torch.stack([confusion[1:, 1:].sum(), confusion[0, 1:].sum(), confusion[1:, 0].sum(), confusion[0, 0]])
