"""Weights of side outputs that are chosen on validation images."""

import pytest
import torch

from shared.calibration.fusion_weights import fused_region_f, fusion_scores, weight_grid
from shared.data import RegionDataset
from shared.metrics import region_f_measure
from shared.networks.layers.side_outputs import SideOutputs, fuse_probabilities


def test_each_fusion_scores_as_the_network_would():
    torch.manual_seed(0)
    sides, mask, weights = torch.rand(3, 5, 7), torch.rand(5, 7) > 0.5, weight_grid(3, 0.25)
    assert len(weights) == 15
    torch.testing.assert_close(weights.sum(1), torch.ones(15))
    for label in (0, 1):
        expected = [
            region_f_measure(fuse_probabilities(sides[None], each)[0, 0] >= 0.5, mask * bool(label), label) for each in weights
        ]
        found = fused_region_f(sides, (mask * bool(label)).long(), label, weights, batch_size=4)
        torch.testing.assert_close(found, torch.stack(expected))


class Painted(SideOutputs):
    """The second side output finds tumour, which is red in `records`, the first one the rest."""

    def __init__(self):
        super().__init__()
        self.add_fusion([1, 2])

    def side_logits(self, images):
        red = (images[:, :1].float() - 160) / 4
        return torch.cat([-red, red], dim=1)


def test_the_side_output_that_is_right_has_the_best_score(records):
    scores = fusion_scores(RegionDataset(records, pixel_labels="mask"), Painted(), weight_grid(2, 0.25))
    assert scores[0] == 1
    assert scores[4] < 0.1
    with pytest.raises(ValueError, match="the network has 2 side outputs, the weights are of 3"):
        fusion_scores(RegionDataset(records, pixel_labels="mask"), Painted(), weight_grid(3))


@pytest.mark.parametrize(("num_sides", "step"), [(1, 0.1), (3, 0.3), (3, 0)])
def test_no_grid_of_weights(num_sides, step):
    with pytest.raises(ValueError, match="at least 2 side outputs and a step that divides 1"):
        weight_grid(num_sides, step)
