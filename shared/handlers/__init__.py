"""Ignite handlers of the training stages: tracking with MLflow, progress, and the list that every stage carries."""

from .auxiliary_weight import FadingAuxiliaryWeight
from .progress import StageProgress
from .tracking import Tracking, experiment_id
from .tracking_address import database_uri
from .training import StageEvents, training_handlers

__all__ = [
    "FadingAuxiliaryWeight",
    "StageEvents",
    "StageProgress",
    "Tracking",
    "database_uri",
    "experiment_id",
    "training_handlers",
]
