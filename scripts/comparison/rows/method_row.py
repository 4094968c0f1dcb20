"""A row of a comparison's table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.metrics import Reliability

from ..data import ComparisonData
from ..scores.ceilings import CEILINGS
from ..scores.intervals import NUM_DRAWS, Draws, Interval, draw, pooled_reliability
from ..scores.scoring import Scores
from ..trainings.baselines import BASELINES, UNTRAINED
from ..trainings.origin import Origin

DONE, SKIPPED, FAILED = "ok", "skipped", "failed"


@dataclass
class MethodRow:
    """A method of the table.

    Attributes:
        key: as on the command line.
        title: for people.
        status: ``"ok"``, ``"skipped"`` or ``"failed"``.
        reason: why it is not ok; of an ok one, which seeds failed and why.
        effort: ``labels``, ``areas`` and ``masks`` that it learned from.
        selection: the same, of the validation split, by which it chose its epoch and threshold.
        mpp: micrometres per pixel at which it reads; None where that is not known.
        overlays: of its bundle.
        settings: keys of its training that are not the bundle's own.
        config: keys of its training's configuration that are no components, with the overlays and `settings`.
        on_features: key of the same method on features of an encoder; empty where there is none, or it has one already.
        seeds: whose maps are scored.
        scores: by name.
        draws: what they are made of, to compare them with another method's.
        of_groups: the same of the test images or slides of each group that is scored apart.
        confusion: pixels of all seeds, true class down, ``(C, C)``.
        training_minutes: mean over seeds, of the process, with the bundle's own evaluation.
        seconds_per_image: mean over test images and seeds, see `mean_seconds`.
        peak_bytes: of the largest process of any seed's training and inference.
        gpu_bytes: the same on the GPUs; None where there is none.
        maps: folder of each seed's maps.
        mapped: of each seed, a hash of the note that says what its maps were made of; empty for ceilings, and for rows of older
            versions.
        files: a hash of the files that it was made of, see `ComparisonData.files_of_methods`; empty for rows of older versions.
        mlflow_runs: id of each seed's run.
        origins: of each seed, the calls that trained it and made its maps; None among them for one that was not noted. Empty for
            what is not trained, and for rows of versions that noted none.
        refused: why this call trained nothing, of a row that an earlier one has finished; such a row is written as it was.
    """

    key: str
    title: str
    status: str = DONE
    reason: str = ""
    effort: dict[str, int] = field(default_factory=dict)
    selection: dict[str, int] = field(default_factory=dict)
    mpp: float | None = None
    overlays: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    on_features: str = ""
    seeds: list[int] = field(default_factory=list)
    scores: dict[str, Interval] = field(default_factory=dict)
    draws: Draws | None = None
    of_groups: dict[str, Draws] = field(default_factory=dict)
    reliability: Reliability | None = None
    confusion: NDArray[np.int64] | None = None
    training_minutes: float = math.nan
    seconds_per_image: float = math.nan
    peak_bytes: int | None = None
    gpu_bytes: int | None = None
    maps: list[Path] = field(default_factory=list)
    mapped: list[str] = field(default_factory=list)
    files: str = ""
    mlflow_runs: list[str] = field(default_factory=list)
    origins: list[list[Origin | None]] = field(default_factory=list)
    refused: str = ""

    @property
    def whole_effort(self) -> dict[str, int]:
        """All labels of an annotator: those to learn from and those to choose by."""
        return {name: count + self.selection.get(name, 0) for name, count in self.effort.items()}

    def of_group(self, group: str) -> MethodRow:
        """The row with the scores of a group alone; what is not known of groups is left out."""
        draws = self.of_groups.get(group)
        scores = {} if draws is None else {name: draws.interval(name) for name in draws.trainings}
        return replace(self, draws=draws, scores=scores, of_groups={}, reliability=None, confusion=None)

    @property
    def is_baseline(self) -> bool:
        return self.key in BASELINES or self.key in CEILINGS

    @property
    def is_of_one_training(self) -> bool:
        """Whether nothing is known of what another training would score; what is not trained would score the same."""
        return len(self.seeds) == 1 and self.key not in UNTRAINED and self.key not in CEILINGS


def fill_scores(row: MethodRow, scored: Sequence[Scores], data: ComparisonData, num_draws: int = NUM_DRAWS) -> None:
    """Fill in what the maps of a method's trainings score, on all test images or slides and on those of each group."""
    row.draws = draw(scored, num_draws, stream=row.key)
    for group in data.groups:
        chosen = data.of_group(group)
        row.of_groups[group] = draw([one.of(chosen) for one in scored], num_draws, stream=row.key)
    row.scores = {name: row.draws.interval(name) for name in row.draws.trainings}
    row.reliability = pooled_reliability(scored)
    row.confusion = np.sum([one.confusion.sum(axis=0) for one in scored], axis=0)
