from .backbones.imagenet_weights import (
    IMAGENET_URLS as IMAGENET_URLS,
    load_imagenet_vgg16 as load_imagenet_vgg16,
    load_imagenet_weights as load_imagenet_weights,
)
from .backbones.resnet import BACKBONES as BACKBONES, dilate_resnet as dilate_resnet, resnet as resnet
from .backbones.side_output_resnet import SideOutputResNet as SideOutputResNet
from .boosted_patches import BoostedPatches as BoostedPatches
from .dcan import DCAN as DCAN
from .deeplab_v2 import DeepLabV2 as DeepLabV2
from .encoded.attention_mil import AttentionMIL as AttentionMIL
from .encoded.encoded_boosting import EncodedBoosting as EncodedBoosting
from .encoded.encoded_classifier import EncodedClassifier as EncodedClassifier
from .encoded.encoded_network import EncodedNetwork as EncodedNetwork
from .encoded.encoded_seg_cls import EncodedSegCls as EncodedSegCls
from .encoded.encoded_segmentation import EncodedSegmentation as EncodedSegmentation
from .encoded.encoded_side_outputs import EncodedSideOutputs as EncodedSideOutputs
from .encoded.encoded_wildcat import EncodedWildcat as EncodedWildcat
from .encoded.heads import pixelwise_head as pixelwise_head
from .ensemble import ProbabilityEnsemble as ProbabilityEnsemble, load_ensemble as load_ensemble
from .fcn import FCN as FCN
from .instance_classifier import InstanceClassifier as InstanceClassifier
from .layers.boosted_trees import tree_scores as tree_scores
from .layers.gated_attention import GatedAttention as GatedAttention, attention_pooling as attention_pooling
from .layers.logits_of_probabilities import LogitsOfProbabilities as LogitsOfProbabilities
from .layers.norm_layers import NORMS as NORMS, FrozenBatchNorm2d as FrozenBatchNorm2d, replace_batch_norm as replace_batch_norm
from .layers.patch_features import PatchFeatures as PatchFeatures
from .layers.pixel_normalization import (
    IMAGENET_MEAN as IMAGENET_MEAN,
    IMAGENET_STD as IMAGENET_STD,
    PixelNormalization as PixelNormalization,
    normalized_by as normalized_by,
)
from .layers.score_pooling import max_min_pooling as max_min_pooling
from .layers.side_outputs import fuse_probabilities as fuse_probabilities
from .scaled_logits import ScaledLogits as ScaledLogits
from .seg_cls_resnet import SegClsResNet18 as SegClsResNet18
from .side_output_vgg import SideOutputVGG as SideOutputVGG
from .unet import UNet as UNet
from .weights import load_backbone as load_backbone, load_initial_weights as load_initial_weights, load_weights as load_weights
from .wildcat import Wildcat as Wildcat
