from .alpha_beta import AlphaBetaLoss as AlphaBetaLoss, alpha_beta_loss as alpha_beta_loss
from .attention_mil import (
    AttentionMILLoss as AttentionMILLoss,
    attention_instance_loss as attention_instance_loss,
    smooth_svm_loss as smooth_svm_loss,
)
from .auxiliary_segmentation import (
    AuxiliarySegmentationLoss as AuxiliarySegmentationLoss,
    auxiliary_segmentation_loss as auxiliary_segmentation_loss,
)
from .cancer_area import AreaConstraintLoss as AreaConstraintLoss, area_constraint as area_constraint
from .constrained_retrain import (
    ConstrainedRetrainLoss as ConstrainedRetrainLoss,
    constrained_retrain_loss as constrained_retrain_loss,
    image_constraint_loss as image_constraint_loss,
)
from .deep_weak_supervision import (
    DeepWeakSupervisionLoss as DeepWeakSupervisionLoss,
    deep_weak_supervision_loss as deep_weak_supervision_loss,
    needs_areas as needs_areas,
)
from .joint_seg_cls import JointSegClsLoss as JointSegClsLoss, inverse_frequency_weights as inverse_frequency_weights
from .power_mean import (
    GeneralizedMeanLoss as GeneralizedMeanLoss,
    generalized_mean as generalized_mean,
    generalized_mean_loss as generalized_mean_loss,
    image_cross_entropy as image_cross_entropy,
    log_generalized_mean as log_generalized_mean,
)
from .selected_instance import (
    SelectedInstanceLoss as SelectedInstanceLoss,
    binary_cross_entropy as binary_cross_entropy,
    selected_instance_loss as selected_instance_loss,
)
from .superpixels import superpixel_means as superpixel_means
