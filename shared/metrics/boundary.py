"""Optimal-dataset-scale F-measure (ODS) of region boundaries: the BSDS protocol, as in the tables of CDWS-MIL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from skimage.morphology import thin
from torch import Tensor

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
    pairs = _Matcher(region_boundary(mask), tolerance * float(np.hypot(*mask.shape)))
    counts = np.empty((len(thresholds), 4), dtype=np.int64)
    # Regions of rising thresholds lie within each other: as many pixels, the same region.
    known: dict[int, tuple[int, int]] = {}
    for row, threshold in enumerate(np.asarray(thresholds, dtype=map_.dtype)):
        region = map_ >= threshold
        size = int(np.count_nonzero(region))
        if size not in known:
            predicted = region_boundary(region)
            known[size] = (pairs.num_matched(predicted), int(np.count_nonzero(predicted)))
        matched, num_predicted = known[size]
        counts[row] = matched, num_predicted, matched, pairs.num_true
    return counts


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
        raise ValueError(f"counts must be ({len(thresholds)}, 4), a row a threshold; got {counts.shape}")
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
    near = np.pad(region, 1, mode="edge")
    inside = near[:-2, 1:-1] & near[2:, 1:-1] & near[1:-1, :-2] & near[1:-1, 2:]
    border = region & ~inside
    rows, columns = (np.flatnonzero(border.any(axis)) for axis in (1, 0))
    if not len(rows):
        return border
    # Thinning takes time in proportion to the pixels it looks at.
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    border[window] = thin(border[window])
    return border


class _Matcher:
    """Largest one-to-one matchings of predicted boundaries with one true boundary.

    Args:
        true: boundary ``(H, W)``.
        distance_px: largest distance of a pair.
    """

    def __init__(self, true: NDArray[np.bool_], distance_px: float) -> None:
        self.num_true = int(np.count_nonzero(true))
        self._margin = int(distance_px)
        reach = np.arange(-self._margin, self._margin + 1)
        dy, dx = (step.ravel() for step in np.meshgrid(reach, reach, indexing="ij"))
        near = dy**2 + dx**2 <= distance_px**2
        rows, columns = np.nonzero(true)
        # Of each true pixel, every place that may hold its partner, in an image with a margin.
        width = true.shape[1] + 2 * self._margin
        self._places = ((rows + self._margin) * width + columns + self._margin)[:, None] + (dy * width + dx)[near]

    def num_matched(self, predicted: NDArray[np.bool_]) -> int:
        """Number of pairs in the largest matching with a predicted boundary ``(H, W)``."""
        framed = np.pad(predicted, self._margin).ravel()
        number_of = np.cumsum(framed, dtype=np.int32) - 1
        is_pair = framed[self._places]
        num_pairs, num_predicted = int(np.count_nonzero(is_pair)), int(number_of[-1]) + 1
        if not num_pairs:
            return 0
        # As a flow of ones: source -> true -> predicted -> sink. scipy's maximum_bipartite_matching counts alike, and takes
        # 2 ms for most boundaries too, but 4 s for some.
        first_predicted = 1 + self.num_true
        sink = first_predicted + num_predicted
        ends = np.concatenate(
            [
                np.arange(1, first_predicted),
                first_predicted + number_of[self._places[is_pair]],
                np.full(num_predicted, sink),
            ]
        )
        out_degrees = np.concatenate([[0, self.num_true], is_pair.sum(1), np.ones(num_predicted, dtype=int), [0]])
        network = csr_array(
            (np.ones(len(ends), dtype=np.int32), ends.astype(np.int32), np.cumsum(out_degrees).astype(np.int32)),
            shape=(sink + 1, sink + 1),
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
