"""Optimal-dataset-scale F-measure (ODS) of region boundaries: the BSDS protocol, as in the tables of CDWS-MIL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

from .thinning import thin_pixels

__all__ = ["BOUNDARY_THRESHOLDS", "BoundaryScore", "boundary_counts", "ods_of_counts", "region_boundary"]

# The 99 of the BSDS benchmark.
BOUNDARY_THRESHOLDS = tuple(step / 100 for step in range(1, 100))
BOUNDARY_TOLERANCE = 0.0075


@dataclass(frozen=True)
class BoundaryScore:
    """The best F over all thresholds; ``float(score)`` is `f`.

    Attributes:
        f: F-measure of the boundaries, in [0, 1].
        threshold: the lowest one that gives `f`.
        precision: share of predicted boundary pixels that are matched, at `threshold`.
        recall: share of true boundary pixels that are matched, at `threshold`.
    """

    f: float
    threshold: float
    precision: float
    recall: float

    def __float__(self) -> float:
        return self.f


def boundary_counts(
    probability: NDArray[Any] | Tensor,
    target: NDArray[Any] | Tensor,
    thresholds: Sequence[float] = BOUNDARY_THRESHOLDS,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> NDArray[np.int64]:
    """Matched and all boundary pixels of one image at every threshold; the counts of several images add up.

    At each threshold the boundary of the region with at least that probability is matched one to one with the boundary of
    the target (see `region_boundary`), the pixels of a pair no farther apart than D = `tolerance` diagonals, so that as many
    pairs are formed as can be.

    The benchmark's own matching is of minimum cost, a pair costing its distance and every unmatched pixel 100 D. It forms as
    many pairs: if one more were possible, then by re-pairing a chain of n pairs into n + 1, which saves 100 D and costs at most
    (n + 1) D. Only where a chain of 100 pairs or more would have to be re-paired, by 100 D in sum (with the default tolerance
    3/4 of the diagonal), may it leave out a pair that is counted here.

    Args:
        probability: ``(H, W)`` or ``(1, H, W)``, in [0, 1]; compared with the thresholds in its own precision.
        target: true tumour 0 or 1, same shape.
        thresholds: in any order. Those that give the same region are computed once.
        tolerance: as a share of the image's diagonal.

    Returns:
        int64 ``(num_thresholds, 4)``: matched predicted, predicted, matched true and true boundary pixels. The matched are as
        many on both sides. Without any boundary in the target all that is predicted is unmatched.

    Raises:
        ValueError: if the shapes do not fit, a probability is outside [0, 1] or a target neither 0 nor 1, there is no
            threshold, or the tolerance is negative.

    Reference:
        Martin et al., TPAMI 2004; Arbelaez et al., TPAMI 2011 (BSDS500 benchmark); Jia et al., IEEE TMI 2017, section V.B.3,
        who do not say how they make boundaries of region maps.
    """
    if not len(thresholds) or tolerance < 0:
        raise ValueError(f"need at least one threshold and tolerance >= 0; got {len(thresholds)}, tolerance={tolerance}")
    map_, mask = _checked(probability, target)
    ascending, place_of = np.unique(np.asarray(thresholds, dtype=map_.dtype), return_inverse=True)
    boundaries = _Boundaries(map_, ascending)
    pairs = _Matcher(region_boundary(mask), tolerance * float(np.hypot(*mask.shape)), boundaries.candidates)
    counts = np.empty((len(ascending), 4), dtype=np.int64)
    for index, size in enumerate(boundaries.region_sizes):
        # Regions of rising thresholds lie within each other: as many pixels, the same region.
        if index and size == boundaries.region_sizes[index - 1]:
            counts[index] = counts[index - 1]
            continue
        predicted = boundaries.at(index)
        num_matched = pairs.num_matched(predicted)
        counts[index] = num_matched, len(predicted), num_matched, pairs.num_true
    return counts[place_of]


def ods_of_counts(counts: NDArray[np.int64], thresholds: Sequence[float] = BOUNDARY_THRESHOLDS) -> BoundaryScore:
    """Best F over the thresholds, of the summed `boundary_counts` of all images.

    The benchmark also interpolates precision and recall between neighbouring thresholds; this takes the thresholds as they are.

    Args:
        counts: ``(num_thresholds, 4)``.
        thresholds: those of the counts.

    Returns:
        F, threshold, precision and recall; ratios 0/0 are 0, as in the benchmark.

    Raises:
        ValueError: if there are not four counts a threshold.
    """
    if counts.shape != (len(thresholds), 4):
        raise ValueError(f"counts must be ({len(thresholds)}, 4), one row per threshold; got {counts.shape}")
    matched_predicted, predicted, matched_true, true = counts.astype(np.float64).T
    precision, recall = matched_predicted / np.maximum(predicted, 1), matched_true / np.maximum(true, 1)
    f = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    order = np.lexsort((np.asarray(thresholds), -f))
    best = int(order[0])
    return BoundaryScore(float(f[best]), float(thresholds[best]), float(precision[best]), float(recall[best]))


def region_boundary(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region's outermost pixels, thinned to a line of one pixel.

    A pixel of the region is on its boundary if one of its four neighbours is outside the region. The image's frame is no
    boundary: a region that fills the image has none. Thinning is that of Guo and Hall, as in the benchmark (MATLAB's bwmorph).

    Args:
        region: ``(H, W)``.

    Returns:
        ``(H, W)``.
    """
    boundaries = _Boundaries(region.astype(np.float32), np.ones(1, np.float32))
    boundary = np.zeros(region.shape, dtype=bool)
    boundary.ravel()[boundaries.candidates[boundaries.at(0)]] = True
    return boundary


class _Boundaries:
    """The boundaries of a map's regions at every threshold, in time that grows with their pixels.

    Args:
        map_: ``(H, W)``.
        thresholds: ascending.

    Attributes:
        candidates: pixels that are outermost at any threshold, as ascending positions in ``map_.ravel()``.
        region_sizes: pixels of the region, for each threshold.
    """

    def __init__(self, map_: NDArray[Any], thresholds: NDArray[Any]) -> None:
        # A pixel is in the region at as many of the lowest thresholds as this says.
        level = np.searchsorted(thresholds, map_, side="right").astype(np.int16 if len(thresholds) < 2**15 else np.int64)
        near = np.pad(level, 1, mode="edge")
        lowest = np.minimum(np.minimum(near[:-2, 1:-1], near[2:, 1:-1]), np.minimum(near[1:-1, :-2], near[1:-1, 2:]))
        self.candidates = np.flatnonzero(lowest < level)
        self._first, self._end = lowest.ravel()[self.candidates], level.ravel()[self.candidates]
        rows, columns = np.divmod(self.candidates, map_.shape[1])
        self._framed = (rows + 1) * near.shape[1] + columns + 1
        self._canvas = np.zeros(near.shape, dtype=np.uint8)
        self.region_sizes = map_.size - np.bincount(level.ravel(), minlength=len(thresholds) + 1).cumsum()[:-1]

    def at(self, threshold: int) -> NDArray[np.int64]:
        """The boundary at the threshold of this number: the numbers of its pixels among `candidates`, ascending."""
        outermost = np.flatnonzero((self._first <= threshold) & (threshold < self._end))
        framed = self._framed[outermost]
        left = thin_pixels(framed, self._canvas)
        return outermost[np.searchsorted(framed, left)]


class _Matcher:
    """Largest one-to-one matchings of predicted boundaries with one true boundary.

    Args:
        true: boundary ``(H, W)``.
        distance_px: largest distance of a pair.
        candidates: every pixel that a predicted boundary may have, as positions in ``true.ravel()``.
    """

    def __init__(self, true: NDArray[np.bool_], distance_px: float, candidates: NDArray[np.int64]) -> None:
        self.num_true = int(np.count_nonzero(true))
        margin = int(distance_px)
        height, width = true.shape
        number_of = np.full((height + 2 * margin, width + 2 * margin), -1, dtype=np.int32)
        framed = (candidates // width + margin) * number_of.shape[1] + candidates % width + margin
        number_of.ravel()[framed] = np.arange(len(candidates))
        reach = np.arange(-margin, margin + 1)
        dy, dx = (step.ravel() for step in np.meshgrid(reach, reach, indexing="ij"))
        near = dy**2 + dx**2 <= distance_px**2
        rows, columns = np.nonzero(true)
        places = ((rows + margin) * number_of.shape[1] + columns + margin)[:, None] + (dy * number_of.shape[1] + dx)[near]
        partners = number_of.ravel()[places]
        is_pair = partners >= 0
        ends = np.concatenate([[0], np.cumsum(np.count_nonzero(is_pair, axis=1))]).astype(np.int32)
        ones = np.ones(ends[-1], dtype=np.int8)
        # Of each candidate, the true pixels within reach.
        self._near = csr_array((ones, partners[is_pair], ends), shape=(self.num_true, len(candidates))).T.tocsr()

    def num_matched(self, predicted: NDArray[np.int64]) -> int:
        """Number of pairs in the largest matching with a predicted boundary, the numbers of its pixels among the candidates."""
        near = self._near[predicted].T.tocsr()
        num_pairs, num_predicted = near.nnz, len(predicted)
        if not num_pairs:
            return 0
        # As a flow of ones: source -> true -> predicted -> sink. scipy's maximum_bipartite_matching counts alike, and takes
        # 2 ms for most boundaries too, but 4 s for some; the other way round the flow takes three times as long.
        first_predicted = 1 + self.num_true
        sink = first_predicted + num_predicted
        ends = np.concatenate([np.arange(1, first_predicted), first_predicted + near.indices, np.full(num_predicted, sink)])
        num_before = self.num_true + num_pairs
        starts = np.concatenate([[0], self.num_true + near.indptr, num_before + np.arange(1, num_predicted + 1), [len(ends)]])
        network = csr_array(
            (np.ones(len(ends), dtype=np.int32), ends.astype(np.int32), starts.astype(np.int32)), shape=(sink + 1, sink + 1)
        )
        return int(maximum_flow(network, 0, sink, method="dinic").flow_value)


def _checked(probability: NDArray[Any] | Tensor, target: NDArray[Any] | Tensor) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Probabilities ``(H, W)`` as float32 or float64, and the target ``(H, W)`` as bool."""
    map_, mask = _array(probability), _array(target)
    if map_.shape != mask.shape or map_.ndim not in (2, 3) or (map_.ndim == 3 and map_.shape[0] != 1):
        raise ValueError(f"probability and target must be (H, W) or (1, H, W), both the same; got {map_.shape}, {mask.shape}")
    map_, mask = map_.reshape(map_.shape[-2:]), mask.reshape(mask.shape[-2:])
    if not ((map_ >= 0) & (map_ <= 1)).all():
        raise ValueError(f"probabilities must be in [0, 1]; got {map_.min()} to {map_.max()}")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"target must be 0 or 1; got {mask[(mask != 0) & (mask != 1)][0]}")
    return map_ if map_.dtype in (np.float32, np.float64) else map_.astype(np.float32), mask != 0


def _array(values: NDArray[Any] | Tensor) -> NDArray[Any]:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    # numpy has no bfloat16.
    return (values.float() if values.is_floating_point() and values.itemsize < 4 else values).numpy()
