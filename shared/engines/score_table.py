"""The table that a person reads at the end of a training or an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

INSTANCE_COLUMNS = {"sensitivity": "Sensitivity", "specificity": "Specificity", "accuracy": "Accuracy"}
PIXEL_COLUMNS = {
    **INSTANCE_COLUMNS,
    "f1": "F1",
    "iou": "IoU",
    "dice_positive": "Dice (CA)",
    "false_positive_share": "FP share (NC)",
}
REGION_COLUMNS = {
    "f_ca": "F (CA)",
    "f_nc": "F (NC)",
    "f_all": "F (all)",
    "predicted_area_ca": "Area (CA)",
    "true_area_ca": "True area (CA)",
}
BOUNDARY_COLUMNS = {"ods": "ODS", "precision": "Precision", "recall": "Recall", "threshold": "Threshold"}
# Kind of score -> title and columns, in the order of the table.
BLOCKS = {
    "instances": ("Instance labels (%)", INSTANCE_COLUMNS),
    "regions": ("Regions (%)", REGION_COLUMNS),
    "boundaries": ("Boundaries (%)", BOUNDARY_COLUMNS),
    "pixels": ("Pixels (%)", PIXEL_COLUMNS),
    "images": ("Image labels (%)", INSTANCE_COLUMNS),
}


def score_table(metrics: Mapping[str, Any], folder: str | Path) -> str:
    """The scores of an evaluation as blocks of one text table, in per cent.

    Args:
        metrics: ``num_images``, and for each kind of `BLOCKS` row name -> score name -> share; missing kinds are left out.
        folder: named below the table.
    """
    blocks = [_block(title, metrics[kind], columns) for kind, (title, columns) in BLOCKS.items() if metrics.get(kind)]
    return "\n".join([*blocks, f"{metrics['num_images']} images; metrics.json, images.csv and examples.png are in {folder}"])


def _block(title: str, rows: Mapping[str, Mapping[str, float | None]], columns: Mapping[str, str]) -> str:
    width = max([len(title), *(len(name) for name in rows)]) + 2
    lines = [title.ljust(width) + "".join(f"{header:>15}" for header in columns.values())]
    for name, scores in rows.items():
        cells = (_cell(scores[score]) for score in columns)
        lines.append(name.ljust(width) + "".join(cells))
    return "\n".join([*lines, ""])


def _cell(share: float | None) -> str:
    return f"{'-':>15}" if share is None else f"{100 * share:15.1f}"
