"""Ignite handlers of the training stages: tracking with MLflow, progress, and the list that every stage carries."""

from .auxiliary_weight import FadingAuxiliaryWeight
from .progress import StageProgress
from .tracking import Tracking
from .training import StageEvents, training_handlers

__all__ = ["FadingAuxiliaryWeight", "StageEvents", "StageProgress", "Tracking", "training_handlers"]
