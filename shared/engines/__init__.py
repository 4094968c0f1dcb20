"""Training stages that survive an interruption, CAMEL's label enrichment between them, and the evaluations behind them."""

from .batches import (
    ConstrainedLoss,
    WeakAreaLoss,
    bag_and_label,
    constrained_instances,
    image_and_area,
    image_and_class,
    image_and_label,
    image_and_mask,
    instance_and_label,
)
from .boosting import BoostingTrainer
from .calibration import Calibration, find_checkpoints, load_threshold
from .class_evaluation import ClassEvaluation
from .distributed import initialize_distributed
from .executed_config import executed_config
from .inferers import ConstrainedRetrainInferer, LatticeInferer, ScoreMapInferer, SelectedInstanceInferer
from .joint_seg_cls import JointInferer, JointLoss, masked_and_labelled
from .label_enrichment import Construct, ConstructFromMasks, LatticeScorer, Relabel
from .lattice_evaluation import LatticeEvaluation
from .map_evaluation import MapEvaluation
from .patch_evaluation import PatchCamelyonEvaluation
from .region_evaluation import RegionEvaluation
from .run_folder import RunFolder
from .segmenters import InstanceMap, ProbabilityMaps, ScoredMaps
from .slide_bags import BagInferer, SlideBags
from .temperature import with_temperature
from .trained_run import check_training
from .trainer import StageTrainer
from .validators import (
    bag_validator,
    class_validator,
    lattice_validator,
    pixel_validator,
    region_validator,
    score_map_validator,
)

__all__ = [
    "BagInferer",
    "BoostingTrainer",
    "Calibration",
    "ClassEvaluation",
    "ConstrainedLoss",
    "ConstrainedRetrainInferer",
    "Construct",
    "ConstructFromMasks",
    "InstanceMap",
    "JointInferer",
    "JointLoss",
    "LatticeEvaluation",
    "LatticeInferer",
    "LatticeScorer",
    "MapEvaluation",
    "PatchCamelyonEvaluation",
    "ProbabilityMaps",
    "RegionEvaluation",
    "Relabel",
    "RunFolder",
    "ScoreMapInferer",
    "ScoredMaps",
    "SelectedInstanceInferer",
    "SlideBags",
    "StageTrainer",
    "WeakAreaLoss",
    "bag_and_label",
    "bag_validator",
    "check_training",
    "class_validator",
    "constrained_instances",
    "executed_config",
    "find_checkpoints",
    "image_and_area",
    "image_and_class",
    "image_and_label",
    "image_and_mask",
    "initialize_distributed",
    "instance_and_label",
    "lattice_validator",
    "load_threshold",
    "masked_and_labelled",
    "pixel_validator",
    "region_validator",
    "score_map_validator",
    "with_temperature",
]
