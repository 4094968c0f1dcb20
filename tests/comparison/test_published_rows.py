"""The published numbers of all bundles stand beside runs on the same data, with the same share and mode, and beside no others."""

from pathlib import Path

import pytest

from scripts.comparison.planning.methods import find_methods, with_dataset
from scripts.comparison.planning.plan import FACTS
from scripts.comparison.scores.intervals import score_names
from scripts.declarations.published import WHOLE, published_data

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
PUBLISHED = published_data(BUNDLES)
# What a paper varies within a table: an overlay of the data set says the rest.
VARIED = {"training_share", "masked_share", "mode", "alpha", "beta"}
# What a comparison on the paper's data, which no manifest of whole slides is, would add.
OF_BACH = dict(zip(FACTS, (["A01", "A02", "A03"], False), strict=True))
# Keys of trainings on a part of the images, or by a mode: wherever there is one, a row says which.
DECISIVE = ("training_share", "masked_share", "num_folds", "mode")


def method_of(key, overlay):
    (found,) = find_methods(BUNDLES, [key])
    return with_dataset(found, overlay)


ROWS = [(data, row, key) for data in PUBLISHED.values() for row in data.rows for key in row.methods]
of_every_row = pytest.mark.parametrize(
    ("data", "row", "key"), ROWS, ids=[f"{data.overlay}-{key}-{index}" for index, (data, _, key) in enumerate(ROWS)]
)


@of_every_row
def test_a_run_with_the_settings_of_a_row_shows_it_and_one_with_others_does_not(data, row, key):
    method, of_group = method_of(key, data.overlay), data.of_groups({row.group})
    config = method.plain_keys(row.settings)
    assert of_group.of(method.key, config) == of_group.of(key, config) == row.scores
    for name in row.settings:
        assert of_group.of(method.key, config | {name: "another"}) == {}, name
    assert data.of_groups({"another group"}).of(method.key, config) == {}


@of_every_row
def test_a_row_says_what_it_depends_on(data, row, key):
    method = method_of(key, data.overlay)
    assert row.settings.keys() >= {name for name in DECISIVE if name in method.training}
    if data.overlay in method.overlays:
        config = method.plain_keys({})
        assert {name for name, value in row.settings.items() if config.get(name) != value} <= {*VARIED, *FACTS}


@of_every_row
def test_scores_are_shares_of_known_ones(data, row, key):
    assert row.scores.keys() <= score_names("abc", ordered=True).keys()
    assert all(0 < value < 1 for value in row.scores.values())
    # Of pooled counts.
    if "iou" in row.scores:
        assert row.scores["iou"] == pytest.approx(row.scores["f1"] / (2 - row.scores["f1"]), abs=0.002)


def shown(key, overlay, group=WHOLE, **given):
    method = method_of(key, overlay)
    return PUBLISHED[overlay].of_groups({group}).of(method.key, method.plain_keys(given))


def test_the_share_of_the_training_images():
    """Jia et al., section V.B: F and ODS with all images and with 20 % of them."""
    assert shown("cdws_mil", "dataset_a") == {"region_f": 0.835, "ods": 0.559}
    assert shown("cdws_mil", "dataset_a", training_share=0.2) == {"region_f": 0.82, "ods": 0.536}
    assert shown("cdws_mil+baseline", "dataset_a", training_share=0.2) == {"region_f": 0.758, "ods": 0.337}
    assert shown("cdws_mil", "dataset_a", training_share=0.6) == shown("cdws_mil", "dataset_a", eta_2=1) == {}
    # Without areas it is DWS-MIL; with features it is another method.
    assert shown("cdws_mil", "dataset_a", etas=[0, 0, 0], eta_fuse=0) == shown("cdws_mil+features", "dataset_a") == {}


def test_the_pair_and_the_group():
    """Lerousseau et al., table 1."""
    inside, outside = "in_distribution", "out_of_location"
    assert shown("alpha_beta_mil", "tcga", inside) == {"auc_tissue": 0.804, "auc_all": 0.952}
    assert shown("alpha_beta_mil", "tcga", outside) == {"auc_tissue": 0.732, "auc_all": 0.974}
    assert shown("alpha_beta_mil", "tcga", inside, alpha=0.4) == {"auc_tissue": 0.726, "auc_all": 0.953}
    assert shown("alpha_beta_mil", "tcga", outside, beta=0) == {"auc_tissue": 0.866, "auc_all": 0.984}
    assert shown("alpha_beta_mil", "tcga") == shown("alpha_beta_mil", "tcga", inside, alpha=0.3) == {}
    tissue = [row.scores["auc_tissue"] for row in PUBLISHED["tcga"].rows if row.group == inside]
    # Section 4 has the mean and the deviation of the 15.
    assert (len(tissue), sum(tissue) / 15) == (15, pytest.approx(0.675, abs=0.0005))


def test_numbers_of_whole_slides_do_not_stand_beside_those_of_patches():
    units = {overlay: {row.unit for row in data.rows} for overlay, data in PUBLISHED.items()}
    patches = {overlay: {"images"} for overlay in ("camelyon16", "adenoma", "dataset_a")}
    assert units == {"bach": {"slides"}, "tcga": {None}} | patches
    for overlay, (unit,) in units.items():
        others = {"images": "slides", "slides": "images"}.get(unit)
        assert PUBLISHED[overlay].of_unit(unit or "slides") == PUBLISHED[overlay]
        assert others is None or PUBLISHED[overlay].of_unit(others).rows == ()


def test_the_share_of_the_masks_and_the_mode():
    assert shown("joint_seg_cls+s_plus_c", "bach", masked_share=0.05, **OF_BACH) == {"bach_score_of_cases": 0.491}
    assert shown("joint_seg_cls", "bach", masked_share=0.05, mode="S", **OF_BACH) == {"bach_score_of_cases": 0.46}
    assert shown("joint_seg_cls+s", "bach", **OF_BACH) == {"bach_score_of_cases": 0.57}
    assert shown("joint_seg_cls", "bach", **OF_BACH) == shown("joint_seg_cls+s", "bach", masked_share=0.5, **OF_BACH) == {}


@pytest.mark.parametrize(
    "other",
    [
        {"training_cases": ["A01", "A06", "A08"]},
        {"training_cases": ["A01", "A02"]},
        {"trains_on_regions": True},
        {"image_size_px": 21},
        {"mpp": 0.467},
    ],
)
def test_other_slides_regions_and_sizes_are_not_the_papers(other):
    assert shown("joint_seg_cls+s", "bach", **OF_BACH | other) == {}
    # As a row of an older version is, which did not note them.
    assert shown("joint_seg_cls+s", "bach") == {}


def test_the_lattice():
    assert shown("camel", "camelyon16")["iou"] == 0.843
    assert shown("camel", "camelyon16", instances_per_side=8) == shown("camel+n8", "camelyon16") == {}
    assert shown("camel+max_max", "camelyon16") == {}
