"""Slides mapped with a head that is about to be shipped, and scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.data import TissueCache, load_manifest
from shared.evaluation.maps.cohort import MapCohort
from shared.evaluation.maps.report import tumour_map_report
from shared.inference import SlideMapper

SCORES = ("iou", "f1", "sensitivity", "specificity", "tissue_auc")


def slide_scores(mapper: SlideMapper, manifest: Path, split: str | None, folder: Path) -> dict[str, Any]:
    """Map whole slides with masks, and score their tissue.

    Args:
        mapper: of the head.
        manifest: of the slides.
        split: of them; None for all.
        folder: for the maps.

    Returns:
        ``num_slides``, scores of the pixels of all ``slides`` together, and of each one by its name.

    Raises:
        ValueError: for slides that cannot be mapped or scored, with the reason.
    """
    mapper.run(manifest, folder, split)
    cohort = MapCohort(folder, load_manifest(manifest, split=split, require=()), TissueCache(folder / "tissue"))
    metrics, rows = tumour_map_report(cohort, mapper.threshold)
    pooled = metrics["pixels_tissue"]
    return {
        "num_slides": metrics["num_slides"],
        "all": {name: pooled["auc" if name == "tissue_auc" else name] for name in SCORES},
        "each": {row["slide"]: {name: row[name] for name in SCORES} for row in rows},
    }
