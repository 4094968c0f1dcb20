"""The table that a person reads at the end of a training or an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

LABEL_COLUMNS = {"sensitivity": "Sensitivity", "specificity": "Specificity", "accuracy": "Accuracy"}
INSTANCE_COLUMNS = {**LABEL_COLUMNS, "precision": "Precision"}
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
AUC_COLUMNS = {
    "auc": "AUC",
    "mean_slide_auc": "AUC, per slide",
    "precision": "Precision",
    "sensitivity": "Recall",
    "f1": "F1",
    "iou": "IoU",
    "mean_slide_iou": "IoU, per slide",
}
CLASS_PIXEL_COLUMNS = {
    "bach_score": "BACH score",
    "accuracy": "Accuracy",
    "foreground_accuracy": "Foreground",
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
    "mean_iou": "Mean IoU",
    "released_iou": "Released IoU",
}
CLASS_COLUMNS = {
    "f1": "F1",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "dice_positive": "Dice (present)",
    "false_positive_share": "FP share (not)",
    "true_share": "True share",
}
# Kind of score -> title and columns, in the order of the table.
BLOCKS = {
    "instances": ("Instance labels (%)", INSTANCE_COLUMNS),
    "regions": ("Regions (%)", REGION_COLUMNS),
    "boundaries": ("Boundaries (%)", BOUNDARY_COLUMNS),
    "pixels": ("Pixels (%)", PIXEL_COLUMNS),
    "class_pixels": ("Pixels (%)", CLASS_PIXEL_COLUMNS),
    "class_pixels_all": ("Pixels with background (%)", CLASS_PIXEL_COLUMNS),
    "class_pixels_of_slides": ("Means of slides (%)", CLASS_PIXEL_COLUMNS),
    "class_pixels_all_of_slides": ("Means, background (%)", CLASS_PIXEL_COLUMNS),
    "classes": ("Classes of pixels (%)", CLASS_COLUMNS),
    "images": ("Image labels (%)", LABEL_COLUMNS),
    "image_classes": ("Image labels (%)", {"accuracy": "Accuracy", "macro_f1": "Macro F1"}),
    "pixels_tissue": ("Pixels, tissue only (%)", AUC_COLUMNS),
    "pixels_all": ("Pixels with background (%)", AUC_COLUMNS),
    "slides": ("Slide labels (%)", {"auc": "AUC"}),
}

# What is measured by the pixels of the truth.
OF_PIXELS = frozenset({"instances", "regions", "boundaries", "pixels", "class_pixels", "classes"})
# Entry of the metrics that says what that truth is where it is no mask.
PIXEL_TRUTH = "pixel_truth"


def score_table(metrics: Mapping[str, Any], folder: str | Path, maps: str | Path | None = None) -> str:
    """The scores of an evaluation as blocks of one text table, in per cent.

    Args:
        metrics: ``num_images`` or ``num_slides``, and for each kind of `BLOCKS` row name -> score name -> share; kinds that are
            missing are left out. With ``pixel_truth: label`` the titles of pixels say that their truth is the image's label.
        folder: with the files of the evaluation, named below the table.
        maps: folder with the maps of the slides, named there as well; None if there are none.
    """
    what = "slides" if "num_slides" in metrics else "images"
    last = f"{metrics[f'num_{what}']} {what}; metrics.json, {what}.csv and examples.png are in {folder}"
    if maps is not None:
        last += f", and the tumour map of every slide is in {maps}"
    return "\n".join([*score_blocks(metrics), last])


def score_blocks(metrics: Mapping[str, Any]) -> list[str]:
    """The blocks of `score_table`."""
    of_labels = metrics.get(PIXEL_TRUTH) == "label"
    return [
        score_block(_against_labels(title) if of_labels and kind in OF_PIXELS else title, metrics[kind], columns)
        for kind, (title, columns) in BLOCKS.items()
        if metrics.get(kind)
    ]


def _against_labels(title: str) -> str:
    """The title of scores whose truth is the image's label on every pixel.

    >>> _against_labels("Pixels (%)")
    'Pixels, truth: image labels (%)'
    """
    return title.replace(" (%)", ", truth: image labels (%)")


def score_block(title: str, rows: Mapping[str, Mapping[str, float | None]], columns: Mapping[str, str]) -> str:
    """Rows of scores under a title, in per cent; `columns` are names of scores and their headers."""
    width = max([len(title), *(len(name) for name in rows)]) + 2
    lines = [title.ljust(width) + "".join(f"{header:>15}" for header in columns.values())]
    for name, scores in rows.items():
        cells = (_cell(scores[score]) for score in columns)
        lines.append(name.ljust(width) + "".join(cells))
    return "\n".join([*lines, ""])


def _cell(share: float | None) -> str:
    return f"{'-':>15}" if share is None else f"{100 * share:15.1f}"
