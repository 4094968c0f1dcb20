from .batches import (
    SlideBags as SlideBags,
    bag_and_label as bag_and_label,
    constrained_instances as constrained_instances,
    image_and_area as image_and_area,
    image_and_class as image_and_class,
    image_and_label as image_and_label,
    image_and_mask as image_and_mask,
    instance_and_label as instance_and_label,
    masked_and_labelled as masked_and_labelled,
)
from .boosting_trainer import BoostingTrainer as BoostingTrainer
from .checkpoints import find_checkpoints as find_checkpoints
from .distributed import initialize_distributed as initialize_distributed
from .inferers import (
    BagInferer as BagInferer,
    ConstrainedRetrainInferer as ConstrainedRetrainInferer,
    JointInferer as JointInferer,
    LatticeInferer as LatticeInferer,
    SelectedInstanceInferer as SelectedInstanceInferer,
)
from .label_enrichment import (
    Construct as Construct,
    ConstructFromMasks as ConstructFromMasks,
    LatticeScorer as LatticeScorer,
    Relabel as Relabel,
)
from .run_record import RunFolder as RunFolder, check_training as check_training, executed_config as executed_config
from .stage_settings import Steps as Steps, TrainingDevice as TrainingDevice, Weights as Weights
from .trainer import StageTrainer as StageTrainer
from .validators import (
    bag_validator as bag_validator,
    class_validator as class_validator,
    lattice_validator as lattice_validator,
    pixel_validator as pixel_validator,
    region_validator as region_validator,
    score_map_validator as score_map_validator,
    slide_validator as slide_validator,
)
from .warm_start import WarmStart as WarmStart
