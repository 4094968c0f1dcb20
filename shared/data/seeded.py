"""Data sets whose randomness is repeatable: their interface to loaders, and how their draws are seeded."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class SeededDataset(Protocol):
    """A map-style data set of manifest records, whose randomness depends on its seed, the epoch, the index and the occurrence."""

    data: Any
    epoch: int

    def draw(self, index: int, occurrence: int = 0) -> Any:
        """Item `index`, which has occurred `occurrence` times in this epoch; with 0 it equals ``dataset[index]``."""
        ...

    def set_epoch(self, epoch: int) -> None: ...


def draw_key(seed: int, epoch: int, index: int, occurrence: int = 0) -> np.random.SeedSequence:
    """What the random numbers of one draw of one item follow from, whichever worker or process makes it.

    Args:
        seed: of the data set.
        epoch: from 0.
        index: of the item.
        occurrence: how often the item has come before in this epoch, over all processes: over-sampled images come several
            times, each time with other random numbers.
    """
    # Without its occurrence a first draw has the numbers that it would have where nothing is over-sampled.
    return np.random.SeedSequence((seed, epoch, index), spawn_key=(occurrence,) if occurrence else ())
