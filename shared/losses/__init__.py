"""One file a loss family. Losses take logits and compute in float32 (or float64), also under autocast."""

from .constrained_retrain import ConstrainedRetrainLoss, constrained_retrain_loss, image_constraint_loss
from .selected_instance import SelectedInstanceLoss, binary_cross_entropy, selected_instance_loss

__all__ = [
    "ConstrainedRetrainLoss",
    "SelectedInstanceLoss",
    "binary_cross_entropy",
    "constrained_retrain_loss",
    "image_constraint_loss",
    "selected_instance_loss",
]
