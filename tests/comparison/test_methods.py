"""The methods that can be compared are the bundles with their overlays, as they declare them."""

import re

import pytest

from scripts.comparison.planning.methods import check_given, find_methods, truth_of

from .conftest import BUNDLES, method


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("camel", "images", ("label",)),
        ("camel+pixel_fsb", "images", ("label", "mask")),
        ("camel+image_fsb", "images", ("label",)),
        ("camel+instance_fsb", "images", ("label", "mask")),
        ("cdws_mil", "images", ("label", "area")),
        ("cdws_mil+dws", "images", ("label",)),
        ("joint_seg_cls", "images", ("label", "mask")),
        ("alpha_beta_mil", "slides", ("label",)),
        ("attention_mil", "slides", ("label",)),
        ("fully_supervised", "images", ("label", "mask")),
        ("wildcat", "images", ("label",)),
        ("mil_boosting", "images", ("label",)),
    ],
)
def test_what_a_bundle_learns_from(name, kind, labels):
    assert (method(name).kind, method(name).labels()) == (kind, labels)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("camel", "camel+features"),
        ("camel+ebhi_seg", "camel+ebhi_seg+features"),
        # Its network is another.
        ("camel+unet", ""),
        ("camel+features", ""),
        ("cdws_mil+finetune", ""),
        ("attention_mil", ""),
    ],
)
def test_the_same_method_on_features(name, expected):
    assert method(name).on_features == expected
    assert not expected or method(expected).reads_features


def test_every_bundle_is_a_method():
    found = [method.key for method in find_methods(BUNDLES)]
    assert found == sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/train.json"))
    assert [method.title for method in find_methods(BUNDLES, ["camel", "camel+pixel_fsb"])] == ["CAMEL", "CAMEL (pixel fsb)"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("resnet", "there is no bundle 'resnet' in .*; the bundles are: alpha_beta_mil, .*camel"),
        ("camel+vnet", "has no overlay 'vnet'"),
        ("camel+metadata", "the bundle camel has no overlay 'metadata'; its overlays are: adenoma, .*unet$"),
    ],
)
def test_a_method_that_is_not_there(name, problem):
    with pytest.raises(ValueError, match=problem):
        find_methods(BUNDLES, [name])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("camel", False),
        ("camel+features", True),
        ("camel+features+finetune", False),
        ("alpha_beta_mil+features+finetune", False),
        ("cdws_mil+finetune", False),
        ("attention_mil", True),
    ],
)
def test_maps_are_made_from_stored_features_of_a_frozen_encoder_alone(name, expected):
    assert method(name).reads_features == expected


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"wildcat": {"seed": 1}}, "--set names wildcat: not among"),
        ({"camel": {"cmil_epochz": 8}}, "--set camel cmil_epochz: camel has no key 'cmil_epochz'; the keys are: "),
        ({"all": {"nonsense": 8}}, "--set all nonsense: none of the compared methods has key 'nonsense'"),
        ({"all": {"seed": 8}}, "--set all seed would have no effect: --seeds decides it"),
    ],
)
def test_a_key_that_is_not_there(given, problem):
    methods = [method("camel"), method("cdws_mil")]
    with pytest.raises(ValueError, match=re.escape(problem)) as raised:
        check_given(methods, given)
    assert "_desc_" not in str(raised.value)
    check_given(
        methods, {"all": {"cmil::num_epochs": 1}, "camel": {"train::trainer::max_epochs": 2}, "cdws_mil": {"num_workers": 1}}
    )


def test_which_rows_are_scored_on_a_data_set():
    """The paper of alpha/beta MIL may have no normal slides; all methods are scored on the same slides."""
    assert truth_of(BUNDLES, "tcga", [method("attention_mil")]) == "masks_only"
    assert truth_of(BUNDLES, None, [method("attention_mil"), method("alpha_beta_mil+tcga")]) == "masks_only"
    # An overlay that has no masks says nothing of which are scored.
    for dataset in ("adenoma", "ebhi_seg", None):
        assert truth_of(BUNDLES, dataset, find_methods(BUNDLES)) is None
