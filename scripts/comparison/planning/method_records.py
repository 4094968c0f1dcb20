"""Which records of its manifest a method learns from and validates on with its settings: folds and cases that change places are
not the manifest's splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from shared.data.manifest import REGION
from shared.data.record import Record

from ..data import ComparisonData
from .methods import Method
from .selection import VALIDATION, chosen_on

_TRAINING = "train_records"
# Cases that a message names.
_NUM_NAMED = 5


class NotComparable(ValueError):
    """A method cannot be trained on these data; the message says what is missing."""


def is_folded(method: Method, parser: ConfigParser) -> bool:
    """Whether the configuration divides the rows outside the test split into folds of its own."""
    return "num_folds" in method.training and parser.get_parsed_content("num_folds") is not None


def trainable(data: ComparisonData, method: Method, parser: ConfigParser) -> list[Record]:
    """Rows that the method may learn from: those of the training split, in folds those of the validation split too."""
    return data.training[method.kind] + (data.validation[method.kind] if is_folded(method, parser) else [])


def learned_records(method: Method, parser: ConfigParser) -> dict[str, list[Record]]:
    """Learned column -> the records whose values of it are used: all of the training, unless the configuration says which."""
    if "learned_records" in method.training:
        return {name: list(records) for name, records in _content(parser, "learned_records").items()}
    return dict.fromkeys(parser.get_parsed_content("learned_columns"), _resolved(parser, _TRAINING))


def selecting_records(data: ComparisonData, method: Method, parser: ConfigParser) -> list[Record]:
    """The records by which the method chooses its epoch and threshold, if it chooses any.

    Raises:
        NotComparable: if there are none to validate on, and the method cannot do without.
    """
    name = chosen_on(method.training, parser)
    return _validation_records(data, method, parser) if name == VALIDATION else _resolved(parser, name)


def effort(learned: Mapping[str, Sequence[Record]]) -> dict[str, int]:
    """Labels, areas and masks of `learned_records`."""
    areas, masks = (
        [record for record in learned.get(name, ()) if record["label"] is None or record["label"] > 0]
        for name in ("area", "mask")
    )
    # A mask says the label too, and of an image without tumour the label is the mask.
    distinct = {tuple(record.get(name) for name in ("image", *REGION)) for records in learned.values() for record in records}
    return {"labels": len(distinct) - len(masks), "areas": len(areas), "masks": len(masks)}


def check_unseen(data: ComparisonData, method: Method, parser: ConfigParser) -> None:
    """Check that the method learns from and validates on nothing of the cases and images that are scored.

    Raises:
        NotComparable: naming the cases; or if there are no records to validate on, and the method cannot do without.
    """
    learned = _resolved(parser, _TRAINING) if _TRAINING in method.training else []
    learned += [record for records in learned_records(method, parser).values() for record in records]
    images = {record["image"] for record in data.records}
    cases = {record["case_id"] for record in data.records if record["case_id"]}
    for what, records in (("learns from", learned), ("validates on", _validation_records(data, method, parser))):
        scored = [record for record in records if record["image"] in images or record.get("case_id") in cases]
        if scored:
            names = sorted({record.get("case_id") or Path(record["image"]).name for record in scored})
            others = f" and {len(names) - _NUM_NAMED} others" if len(names) > _NUM_NAMED else ""
            raise NotComparable(
                f"{what} {method.kind} of {', '.join(names[:_NUM_NAMED])}{others}, whose rows of the split 'test' are scored: "
                "expected cases of the other splits alone. Leave out the setting that takes them, such as validation_case, or "
                "move these cases in the manifest"
            )


def _validation_records(data: ComparisonData, method: Method, parser: ConfigParser) -> list[Record]:
    if VALIDATION not in method.training:
        return data.validation[method.kind]
    try:
        return _resolved(parser, VALIDATION)
    except ValueError as error:
        if data.validation[method.kind] or is_folded(method, parser):
            raise
        raise NotComparable(f"needs {method.kind} of the split 'val'") from error


def _resolved(parser: ConfigParser, name: str) -> list[Record]:
    return list(_content(parser, name))


def _content(parser: ConfigParser, name: str) -> Any:
    """What an item of a configuration is with its manifest; what is wrong there is said without MONAI's words."""
    try:
        return parser.get_parsed_content(name)
    except RuntimeError as error:
        cause: BaseException | None = error
        while isinstance(cause, RuntimeError):
            cause = cause.__cause__
        if isinstance(cause, ValueError):
            raise cause from error
        raise
