"""One file a loss family. Losses take logits and compute in float32 (or float64), also under autocast."""

from .alpha_beta import AlphaBetaLoss, alpha_beta_loss
from .area_constraint import AreaConstraintLoss, area_constraint
from .auxiliary_segmentation import AuxiliarySegmentationLoss, auxiliary_segmentation_loss
from .constrained_retrain import ConstrainedRetrainLoss, constrained_retrain_loss, image_constraint_loss
from .deep_weak_supervision import DeepWeakSupervisionLoss, deep_weak_supervision_loss
from .generalized_mean import (
    GeneralizedMeanLoss,
    generalized_mean,
    generalized_mean_loss,
    image_cross_entropy,
    log_generalized_mean,
)
from .joint_seg_cls import JointSegClsLoss, inverse_frequency_weights
from .selected_instance import SelectedInstanceLoss, binary_cross_entropy, selected_instance_loss
from .superpixel_means import superpixel_means

__all__ = [
    "AlphaBetaLoss",
    "AreaConstraintLoss",
    "AuxiliarySegmentationLoss",
    "ConstrainedRetrainLoss",
    "DeepWeakSupervisionLoss",
    "GeneralizedMeanLoss",
    "JointSegClsLoss",
    "SelectedInstanceLoss",
    "alpha_beta_loss",
    "area_constraint",
    "auxiliary_segmentation_loss",
    "binary_cross_entropy",
    "constrained_retrain_loss",
    "deep_weak_supervision_loss",
    "generalized_mean",
    "generalized_mean_loss",
    "image_constraint_loss",
    "image_cross_entropy",
    "inverse_frequency_weights",
    "log_generalized_mean",
    "selected_instance_loss",
    "superpixel_means",
]
