"""One file a network. Every network takes raw RGB pixel values, 0 to 255, and returns logits; `SideOutputVGG` probabilities."""

from .boosted_patches import BoostedPatches, tree_scores
from .dcan import DCAN
from .deeplab_v2 import DeepLabV2
from .ensemble import ProbabilityEnsemble, load_ensemble
from .fcn import FCN
from .imagenet_weights import IMAGENET_URLS, load_imagenet_vgg16, load_imagenet_weights
from .instance_classifier import InstanceClassifier
from .logits_of_probabilities import LogitsOfProbabilities
from .norm_layers import NORMS, FrozenBatchNorm2d, replace_batch_norm
from .patch_features import PatchFeatures
from .pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization
from .resnet import BACKBONES, dilate_resnet, resnet
from .scaled_logits import ScaledLogits
from .seg_cls_resnet import SegClsResNet18
from .side_output_vgg import SideOutputVGG, fuse_probabilities
from .unet import UNet
from .weights import load_backbone, load_weights
from .wildcat import Wildcat, max_min_pooling

__all__ = [
    "BACKBONES",
    "DCAN",
    "FCN",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "IMAGENET_URLS",
    "NORMS",
    "BoostedPatches",
    "DeepLabV2",
    "FrozenBatchNorm2d",
    "InstanceClassifier",
    "LogitsOfProbabilities",
    "PatchFeatures",
    "PixelNormalization",
    "ProbabilityEnsemble",
    "ScaledLogits",
    "SegClsResNet18",
    "SideOutputVGG",
    "UNet",
    "Wildcat",
    "dilate_resnet",
    "fuse_probabilities",
    "load_backbone",
    "load_ensemble",
    "load_imagenet_vgg16",
    "load_imagenet_weights",
    "load_weights",
    "max_min_pooling",
    "replace_batch_norm",
    "resnet",
    "tree_scores",
]
