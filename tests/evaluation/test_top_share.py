"""The mean of a slide's highest scores, from a histogram of them."""

import pytest
import torch

from shared.evaluation.map_evaluation import top_share_mean_of_histogram
from shared.metrics.bag_ranking import top_share_mean


@pytest.mark.parametrize("share", [0.001, 0.2, 1 / 3, 0.999, 1.0])
@pytest.mark.parametrize("num_values", [1, 2, 7, 500])
def test_top_share_of_a_histogram(num_values, share):
    values = torch.randint(0, 256, (num_values,), generator=torch.Generator().manual_seed(num_values))
    histogram = torch.bincount(values, minlength=256)
    expected = float(top_share_mean(values.double() / 255, share))
    assert top_share_mean_of_histogram(histogram, share) == pytest.approx(expected)


def test_top_share_of_nothing():
    assert top_share_mean_of_histogram(torch.zeros(256, dtype=torch.int64), 0.2) == 0.0
