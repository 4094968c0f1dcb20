"""One mask from the masks of two pathologists, and of a third where they disagree (Jia et al., IEEE TMI 2017, V.B.2)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

LEAST_OVERLAP = 0.8


class Consensus(NamedTuple):
    """What two masks agree on.

    Attributes:
        mask: bool ``(H, W)``; regions on which nobody has decided are not in it.
        num_agreed: regions with enough overlap.
        num_decided: other regions, on which the third mask decided.
        num_open: other regions without a third mask.
    """

    mask: NDArray[np.bool_]
    num_agreed: int
    num_decided: int
    num_open: int


def consensus_mask(
    first: NDArray[Any], second: NDArray[Any], third: NDArray[Any] | None = None, least_overlap: float = LEAST_OVERLAP
) -> Consensus:
    """Agree on every region that either of two masks shows: a connected part of their union, diagonal neighbours connected.

    Where the masks overlap by more than `least_overlap`, the region is what both show. Elsewhere, and where one mask shows
    nothing, the third mask decides whether the region counts: as a whole, if the third mask covers more than half of it, or not.

    Args:
        first: mask ``(H, W)``, whatever is not 0 is tumour.
        second: the same of another pathologist.
        third: the same of a third one; None where there is none.
        least_overlap: intersection over union above which a region is agreed on, in [0, 1).

    Raises:
        ValueError: for masks of different shapes, or an overlap out of range.

    Reference:
        Jia et al., IEEE TMI 2017, section V.B.2. Readings: the overlap is intersection over union, of each region by itself; a
        region that the third pathologist confirms is all that either of the two has marked.

    >>> first, second = np.array([[1, 1, 1, 1, 1, 1, 0, 1]]), np.array([[1, 1, 1, 1, 1, 0, 0, 0]])
    >>> consensus_mask(first, second).mask.astype(int), consensus_mask(first, second).num_open
    (array([[1, 1, 1, 1, 1, 0, 0, 0]]), 1)
    """
    masks = [np.asarray(mask) != 0 for mask in (first, second)]
    judge = None if third is None else np.asarray(third) != 0
    shapes = {mask.shape for mask in (*masks, *([] if judge is None else [judge]))}
    if len(shapes) != 1 or masks[0].ndim != 2:
        raise ValueError(f"expected masks (H, W) of one shape; found {', '.join(map(str, sorted(shapes)))}")
    if not 0 <= least_overlap < 1:
        raise ValueError(f"the least overlap must be in [0, 1); got {least_overlap}")
    either, both = masks[0] | masks[1], masks[0] & masks[1]
    regions: NDArray[np.int64] = label(either, connectivity=2)
    count = int(regions.max()) + 1
    sizes, shared = (np.bincount(regions[part], minlength=count) for part in (either, both))
    agreed = np.zeros(count, bool)
    agreed[1:] = shared[1:] > least_overlap * sizes[1:]
    others = count - 1 - int(agreed.sum())
    mask = both & agreed[regions]
    if judge is None:
        return Consensus(mask, int(agreed.sum()), 0, others)
    confirmed = ~agreed & (2 * np.bincount(regions[judge & either], minlength=count) > sizes)
    confirmed[0] = False
    return Consensus(mask | confirmed[regions], int(agreed.sum()), others, 0)
