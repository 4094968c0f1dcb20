from .bag_ranking import bag_scores as bag_scores
from .binary import (
    SCORES as SCORES,
    PooledBinaryScores as PooledBinaryScores,
    binary_counts as binary_counts,
    binary_scores as binary_scores,
)
from .boundary import (
    BOUNDARY_THRESHOLDS as BOUNDARY_THRESHOLDS,
    BoundaryScore as BoundaryScore,
    boundary_counts as boundary_counts,
    ods_of_counts as ods_of_counts,
    region_boundary as region_boundary,
)
from .calibration_error import (
    LOGIT_LEVELS as LOGIT_LEVELS,
    Reliability as Reliability,
    fit_temperature as fit_temperature,
    fit_temperature_of_logits as fit_temperature_of_logits,
    logit_histograms as logit_histograms,
    nll_of_histograms as nll_of_histograms,
    reliability_of_histograms as reliability_of_histograms,
    reliability_of_logits as reliability_of_logits,
    reliability_of_map_histograms as reliability_of_map_histograms,
)
from .classes import (
    CLASS_SCORES as CLASS_SCORES,
    PooledClassScores as PooledClassScores,
    bach_score as bach_score,
    bach_score_of_confusion as bach_score_of_confusion,
    class_scores as class_scores,
    confusion_matrix as confusion_matrix,
)
from .pooled_ranking import PixelRanking as PixelRanking, ScoreRanking as ScoreRanking
from .ranking import (
    counts_at as counts_at,
    roc_auc as roc_auc,
    roc_auc_of_histograms as roc_auc_of_histograms,
    score_histograms as score_histograms,
    youden_threshold_of_histograms as youden_threshold_of_histograms,
)
from .region import MeanRegionF as MeanRegionF, region_f_measure as region_f_measure
