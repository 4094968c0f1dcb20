"""Names that others import from these packages: the mathematics of the papers, whether or not a bundle runs it."""

import importlib

import pytest

NAMES = {
    "shared.losses": ["AreaConstraintLoss", "GeneralizedMeanLoss", "SelectedInstanceLoss", "generalized_mean"],
    "shared.metrics": ["bach_score", "region_f_measure"],
    "shared.selection": ["alpha_beta_labels", "max_max", "max_min"],
    "shared.networks": [
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
    ],
}


@pytest.mark.parametrize("package", NAMES)
def test_names_stay_where_others_import_them(package):
    loaded = importlib.import_module(package)
    assert not [name for name in NAMES[package] if name not in loaded.__all__ or not hasattr(loaded, name)]
