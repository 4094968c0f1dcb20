"""What readers of intervals must know: what was drawn, how few there were, and of how many trainings the scores are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.data.record import Record

from ..rows.method_row import MethodRow
from ..scores.intervals import FEW_CASES


@dataclass(frozen=True)
class Sampled:
    """What intervals are drawn over: patients, or images or slides of which nobody has said whose they are.

    Attributes:
        unit: of the test data, ``"image"`` or ``"slide"``.
        num_rows: rows that are scored.
        num_unnamed: those of them without ``case_id``.
    """

    unit: str
    num_rows: int
    num_unnamed: int

    @classmethod
    def of(cls, records: Sequence[Record], unit: str) -> Sampled:
        return cls(unit, len(records), sum(not record["case_id"] for record in records))

    @property
    def over(self) -> str:
        """What an interval is over, in words.

        >>> [Sampled("image", 29, number).over for number in (0, 9, 29)]
        ['patients', 'patients and images (9 of 29 without case_id)', 'images (no case_id)']
        """
        if not self.num_unnamed:
            return "patients"
        if self.num_unnamed == self.num_rows:
            return f"{self.unit}s (no case_id)"
        return f"patients and {self.unit}s ({self.num_unnamed} of {self.num_rows} without case_id)"

    def counted(self, number: int) -> str:
        """A number of what is drawn, in words.

        >>> Sampled("image", 29, 0).counted(1), Sampled("image", 29, 29).counted(12)
        ('1 test case', '12 test images (no case_id)')
        """
        return f"{number} test {cases_text(self.unit, self.num_rows, self.num_unnamed, number)}"


def cases_text(unit: str, num_rows: int, num_unnamed: int, number: int = 0) -> str:
    """What rows of a split are counted as.

    >>> [cases_text("slide", 29, number) for number in (0, 9, 29)]
    ['cases', 'cases and slides without case_id', 'slides (no case_id)']
    >>> [cases_text("slide", 29, number, 1) for number in (0, 29)]
    ['case', 'slide (no case_id)']
    """
    ending = "" if number == 1 else "s"
    if not num_unnamed:
        return f"case{ending}"
    return f"{unit}{ending} (no case_id)" if num_unnamed == num_rows else f"cases and {unit}s without case_id"


def trainings_text(row: MethodRow, sampled: Sampled) -> str:
    """How many trainings a row is the mean of, and what its intervals leave out."""
    if row.is_of_one_training:
        return f"over {sampled.over} only (1 seed)"
    return f"{len(row.seeds)} seeds" if len(row.seeds) > 1 else ""


def pair_text(row: MethodRow, reference: MethodRow, sampled: Sampled) -> str:
    """The same of a row's differences to another, of whose trainings there may be one alone."""
    if reference.is_of_one_training and not row.is_of_one_training:
        return f"over {sampled.over} only (1 seed of {reference.title})"
    return trainings_text(row, sampled)


def over_text(rows: Sequence[MethodRow], sampled: Sampled) -> str:
    """What the intervals of several rows are over."""
    return sampled.over + (" and seeds" if any(len(row.seeds) > 1 for row in rows) else "")


def caution(
    rows: Sequence[MethodRow], sampled: Sampled, class_names: Sequence[str] = ("normal", "tumour"), notes: Sequence[str] = ()
) -> str:
    """What readers of the intervals must know: few cases, or few with tumour; cases that are images; methods of one training.
    Empty if all is well.

    Args:
        rows: that are shown.
        sampled: what is drawn.
        class_names: class 0 is the background.
        notes: to be said before it.
    """
    drawn = next((row.draws for row in rows if row.draws is not None), None)
    said = [*notes]
    if drawn is not None:
        if drawn.num_cases < FEW_CASES:
            said.append(f"Only {sampled.counted(drawn.num_cases)}: below {FEW_CASES} the intervals are rough.")
        tumour = class_names[1] if len(class_names) == 2 else f"a class other than {class_names[0]}"
        rests = [
            ("sensitivity", tumour, "sensitivity, IoU, F1, AUC and the means of such cases"),
            ("specificity", f"{class_names[0]} pixels", "specificity and AUC"),
        ]
        if len(class_names) > 2:
            # Of a class that the test data lack all is said where they are checked.
            found = [(f"f1_{index}", name) for index, name in enumerate(class_names) if index and drawn.num_known(f"f1_{index}")]
            rests += [(f1, name, "its F1, macro F1 and mean IoU") for f1, name in found]
        for name, what, scores in rests:
            number = drawn.num_known(name)
            if number == 0:
                none = f"The only {sampled.counted(1).removeprefix('1 ')} lacks"
                if drawn.num_cases > 1:
                    none = f"None of the {sampled.counted(drawn.num_cases)} has"
                said.append(f"{none} {what}: {scores} are not known.")
            elif number < min(FEW_CASES, drawn.num_cases):
                have, these = ("has", "it") if number == 1 else ("have", "these")
                said.append(
                    f"Only {number} of {sampled.counted(drawn.num_cases)} {have} {what}: {scores} rest on {these}, and below "
                    f"{FEW_CASES} intervals are rough."
                )
    if sampled.num_unnamed:
        said.append(f"Intervals are over {sampled.over}: where several {sampled.unit}s are of one patient, they are too narrow.")
    if any(row.is_of_one_training for row in rows):
        said.append(f"With one training per method, intervals cover {sampled.over} only and are too narrow.")
    return " ".join(said)


def split_text(counts: Mapping[str, int], unit: str) -> str:
    """How many cases a split has.

    >>> split_text({"rows": 9, "cases": 9, "unnamed": 9}, "image")
    '9 images (no case_id)'
    >>> split_text({"rows": 9, "cases": 1, "unnamed": 0}, "image")
    '1 case'
    """
    return f"{counts['cases']} {cases_text(unit, counts['rows'], counts['unnamed'], counts['cases'])}"
