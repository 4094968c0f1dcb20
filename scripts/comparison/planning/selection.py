"""What of its validation records a training chooses its epoch and threshold by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser

from shared.data.record import Record

# How the names begin of the metrics that labels of images and slides alone give; all others need masks.
_OF_LABELS = ("val_image_", "val_slide_", "val_proxy_auc")
_KEEP_BEST = "keep_best"
# Ids of the records that a training validates on, and of those among them that its calibration draws, if it draws any.
VALIDATION, _CALIBRATION = "val_records", "calibration_records"
_REFERENCE = re.compile(r"[@%](\w+(?:(?:::|#)\w+)*)")
# As "$@initial_weights is not None and @max_max::trainer.run()".
_STEP_UNLESS_NULL = re.compile(r"\$@(?P<key>\w+(?:::\w+)*) is not None and ")


def chosen_by(training: Mapping[str, Any], parser: ConfigParser) -> set[str]:
    """Columns of the validation rows, ``label`` and ``mask``, that a training chooses by; none where the last epoch is kept.

    An epoch is chosen by the metric that a key ``keep_best`` names, a threshold by the labels where there is a ``calibration``
    and no ``threshold`` is given. What no step of the training's ``run`` refers to chooses nothing.

    Args:
        training: its configuration.
        parser: of it, with the settings of the user.
    """
    used = _used(parser)
    found = {"label" if metric.startswith(_OF_LABELS) else "mask" for metric in _metrics(training, parser, used)}
    given = parser.get_parsed_content("threshold") if "threshold" in training else None
    return found | ({"label"} if "calibration" in used and given is None else set())


def chosen_on(training: Mapping[str, Any], parser: ConfigParser) -> str:
    """Id of the records that a training chooses on: those that its calibration draws where it chooses a threshold alone, else all
    that it validates on.

    Args:
        training: its configuration.
        parser: of it, with the settings of the user.
    """
    used = _used(parser)
    return _CALIBRATION if _CALIBRATION in used and not _metrics(training, parser, used) else VALIDATION


def _metrics(training: Mapping[str, Any], parser: ConfigParser, used: set[str]) -> list[str]:
    """The metrics by which epochs are chosen in the steps that are run."""
    metrics = (parser.get_parsed_content(key) for key in _keys(training) if key in used)
    return [metric for metric in metrics if metric]


def _keys(training: Mapping[str, Any]) -> Iterator[str]:
    """Ids of every choice of an epoch: of the training, and of its stages."""
    for name, value in training.items():
        if name == _KEEP_BEST:
            yield name
        elif isinstance(value, Mapping) and "_target_" not in value and _KEEP_BEST in value:
            yield f"{name}::{_KEEP_BEST}"


def _used(parser: ConfigParser) -> set[str]:
    """Ids of everything that the steps of ``run`` refer to, directly or by what they refer to, and of what contains it."""
    found: set[str] = set()
    waiting = ["run"]
    while waiting:
        name = waiting.pop()
        if name in found or name not in parser:
            continue
        found.add(name)
        waiting += [f"{name}::{part}" for part in _parts(parser[name])] + _references(parser, parser[name])
    return found | {name.rpartition("::")[0] for name in found}


def _parts(item: Any) -> list[str]:
    if isinstance(item, Mapping):
        return [str(part) for part in item]
    return [str(index) for index in range(len(item))] if isinstance(item, list) else []


def _references(parser: ConfigParser, item: Any) -> list[str]:
    """Ids that a text refers to; none in a step that is left out because a key is null."""
    if not isinstance(item, str):
        return []
    condition = _STEP_UNLESS_NULL.match(item)
    if condition and parser[condition["key"]] in (None, "$None"):
        return []
    return [reference.replace("#", "::") for reference in _REFERENCE.findall(item)]


def selection_effort(columns: set[str], validation: Sequence[Record]) -> dict[str, int]:
    """Labels and masks that are used to choose; of an image without tumour the label is the mask."""
    masks = sum(record["label"] != 0 and record["mask"] is not None for record in validation) if "mask" in columns else 0
    return {"labels": (len(validation) if columns else 0) - masks, "areas": 0, "masks": masks}
