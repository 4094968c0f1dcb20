"""One file a network. Every network takes raw RGB pixel values, 0 to 255, and returns logits; `SideOutputVGG` probabilities."""

from .deeplab_v2 import DeepLabV2
from .ensemble import ProbabilityEnsemble, load_ensemble
from .imagenet_weights import IMAGENET_URLS, load_imagenet_vgg16, load_imagenet_weights
from .instance_classifier import InstanceClassifier
from .logits_of_probabilities import LogitsOfProbabilities
from .norm_layers import NORMS, FrozenBatchNorm2d, replace_batch_norm
from .pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization
from .resnet import BACKBONES, dilate_resnet, resnet
from .seg_cls_resnet import SegClsResNet18
from .side_output_vgg import SideOutputVGG, fuse_probabilities
from .unet import UNet
from .weights import load_backbone, load_weights

__all__ = [
    "BACKBONES",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "IMAGENET_URLS",
    "NORMS",
    "DeepLabV2",
    "FrozenBatchNorm2d",
    "InstanceClassifier",
    "LogitsOfProbabilities",
    "PixelNormalization",
    "ProbabilityEnsemble",
    "SegClsResNet18",
    "SideOutputVGG",
    "UNet",
    "dilate_resnet",
    "fuse_probabilities",
    "load_backbone",
    "load_ensemble",
    "load_imagenet_vgg16",
    "load_imagenet_weights",
    "load_weights",
    "replace_batch_norm",
    "resnet",
]
