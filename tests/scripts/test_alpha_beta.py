"""What the benchmark of alpha and beta refuses before it trains, and what it tells the scoring of patches."""

import argparse
import json
import re
from pathlib import Path

import pytest

from scripts.benchmarks import alpha_beta
from scripts.benchmarks.alpha_beta_patches import NETWORK_KEYS

CONFIGS = Path(__file__).parents[2] / "bundles" / "alpha_beta_mil" / "configs"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--alphas", "0.2", "0.3"], r"--alphas: expected values of the grid of step 0\.2, .*; found 0\.3"),
        (["--betas", "1"], r"--betas: expected .*; found 1"),
        (["--patch_camelyon", "nowhere"], r"nowhere/camelyonpatch_level_2_split_test_x\.h5"),
    ],
    ids=["alpha", "beta", "patches"],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_trained(tmp_path, given, problem):
    parser = argparse.ArgumentParser()
    alpha_beta.add_arguments(parser)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=problem):
        alpha_beta.run(parser.parse_args(["--config_file", str(CONFIGS / "train.json"), "--output_dir", str(out), *given]))
    assert not out.exists()


def test_patches_are_scored_with_the_network_that_was_trained():
    """Every key of the network is taken from the training, and the bundle sees that it is the training's."""
    config = json.loads((CONFIGS / "patch_camelyon.json").read_text())
    keys = set(re.findall(r"@(\w+)", json.dumps(config["network_def"]))) | {"mpp"}
    assert keys == {*NETWORK_KEYS} == {*config["check_training"]["keys"]}


def test_the_published_grid_is_that_of_the_papers_rows():
    """Lerousseau et al., table 1: 15 pairs of both groups, with and without background; and three pairs on PatchCamelyon."""
    found = alpha_beta.published_grids(CONFIGS.parent)
    assert {score: {source: len(pairs) for source, pairs in sources.items()} for score, sources in found.items()} == {
        "AUC, tissue": {"published, in distribution": 15, "published, out of location": 15},
        "AUC with background": {"published, in distribution": 15, "published, out of location": 15},
        "PatchCamelyon AUC": {"published (others .428 to .612)": 3},
    }
    assert set(found["AUC, tissue"]["published, in distribution"]) == set(alpha_beta.grid())
    assert found["AUC, tissue"]["published, out of location"][0.2, 0.0] == 0.866
    assert found["AUC with background"]["published, in distribution"][1.0, 0.0] == 0.926
    assert found["PatchCamelyon AUC"]["published (others .428 to .612)"][0.2, 0.2] == 0.802
