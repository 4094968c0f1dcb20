from .auxiliary_weight import FadingAuxiliaryWeight as FadingAuxiliaryWeight
from .progress import StageProgress as StageProgress
from .tracking import Tracking as Tracking
from .tracking_address import database_uri as database_uri, experiment_id as experiment_id
from .training import training_handlers as training_handlers
