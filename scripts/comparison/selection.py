"""What of the validation split a training chooses its epoch and threshold by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser

from shared.data.record import Record

# How the names begin of the metrics that labels of images and slides alone give; all others need masks.
_OF_LABELS = ("val_image_", "val_slide_", "val_proxy_auc")
_KEEP_BEST = "keep_best"


def chosen_by(training: Mapping[str, Any], parser: ConfigParser) -> set[str]:
    """Columns of the validation rows, ``label`` and ``mask``, that a training chooses by; none where the last epoch is kept.

    An epoch is chosen by the metric that a key ``keep_best`` names, a threshold by the labels where there is a ``calibration``
    and no ``threshold`` is given.

    Args:
        training: its configuration.
        parser: of it, with the settings of the user.
    """
    metrics = [parser.get_parsed_content(key) for key in _keys(training)]
    found = {"label" if metric.startswith(_OF_LABELS) else "mask" for metric in metrics if metric}
    given = parser.get_parsed_content("threshold") if "threshold" in training else None
    return found | ({"label"} if "calibration" in training and given is None else set())


def _keys(training: Mapping[str, Any]) -> Iterator[str]:
    """Ids of every choice of an epoch: of the training, and of its stages."""
    for name, value in training.items():
        if name == _KEEP_BEST:
            yield name
        elif isinstance(value, Mapping) and "_target_" not in value and _KEEP_BEST in value:
            yield f"{name}::{_KEEP_BEST}"


def selection_effort(columns: set[str], validation: Sequence[Record]) -> dict[str, int]:
    """Labels and masks that are used to choose; of an image without tumour the label is the mask."""
    masks = sum(record["label"] != 0 and record["mask"] is not None for record in validation) if "mask" in columns else 0
    return {"labels": (len(validation) if columns else 0) - masks, "areas": 0, "masks": masks}
