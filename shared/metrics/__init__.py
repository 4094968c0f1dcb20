"""One file a metric family."""

from .bag_ranking import BagRanking, bag_scores, proxy_tiles, top_share_mean
from .binary import SCORES, PooledBinaryScores, binary_counts, binary_scores
from .boundary import BOUNDARY_THRESHOLDS, BoundaryScore, boundary_counts, boundary_ods, ods_of_counts, region_boundary
from .calibration_error import (
    LOGIT_LEVELS,
    Reliability,
    fit_temperature,
    fit_temperature_of_logits,
    logit_histograms,
    nll_of_histograms,
    reliability_of_histograms,
    reliability_of_logits,
    reliability_of_map_histograms,
)
from .classes import CLASS_SCORES, PooledClassScores, bach_score, bach_score_of_confusion, class_scores, confusion_matrix
from .ranking import counts_at, roc_auc, roc_auc_of_histograms, score_histograms, youden_threshold, youden_threshold_of_histograms
from .region import MeanRegionF, region_f_measure

__all__ = [
    "BOUNDARY_THRESHOLDS",
    "CLASS_SCORES",
    "LOGIT_LEVELS",
    "SCORES",
    "BagRanking",
    "BoundaryScore",
    "MeanRegionF",
    "PooledBinaryScores",
    "PooledClassScores",
    "Reliability",
    "bach_score",
    "bach_score_of_confusion",
    "bag_scores",
    "binary_counts",
    "binary_scores",
    "boundary_counts",
    "boundary_ods",
    "class_scores",
    "confusion_matrix",
    "counts_at",
    "fit_temperature",
    "fit_temperature_of_logits",
    "logit_histograms",
    "nll_of_histograms",
    "ods_of_counts",
    "proxy_tiles",
    "region_boundary",
    "region_f_measure",
    "reliability_of_histograms",
    "reliability_of_logits",
    "reliability_of_map_histograms",
    "roc_auc",
    "roc_auc_of_histograms",
    "score_histograms",
    "top_share_mean",
    "youden_threshold",
    "youden_threshold_of_histograms",
]
