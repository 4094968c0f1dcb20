"""One file a metric family."""

from .binary import SCORES, PooledBinaryScores, binary_counts, binary_scores
from .boundary import BOUNDARY_THRESHOLDS, BoundaryScore, boundary_counts, boundary_ods, ods_of_counts, region_boundary
from .region import MeanRegionF, region_f_measure

__all__ = [
    "BOUNDARY_THRESHOLDS",
    "SCORES",
    "BoundaryScore",
    "MeanRegionF",
    "PooledBinaryScores",
    "binary_counts",
    "binary_scores",
    "boundary_counts",
    "boundary_ods",
    "ods_of_counts",
    "region_boundary",
    "region_f_measure",
]
