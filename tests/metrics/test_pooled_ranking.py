import math

import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from sklearn.metrics import roc_auc_score

from shared.metrics import PixelRanking, ScoreRanking

from ..engines.test_distributed import in_processes


def random_pixels(num_images=9, side_px=40, seed=0):
    """Probabilities ``(B, H, W)`` and truth of the same shape, with many probabilities close to 0 and to 1."""
    generator = torch.Generator().manual_seed(seed)
    truth = (torch.rand(num_images, side_px, side_px, generator=generator) < 0.3).long()
    logits = 4 * torch.randn(num_images, side_px, side_px, generator=generator) + 3 * truth
    return logits.sigmoid(), truth


@pytest.mark.parametrize("batch_size", [1, 4, 9])
@pytest.mark.parametrize(("kind", "tolerance"), [(ScoreRanking, 1e-12), (PixelRanking, 1e-4)])
def test_against_scikit_learn_over_batches(kind, tolerance, batch_size):
    probabilities, truth = random_pixels()
    engine = Engine(lambda _, batch: batch)
    kind().attach(engine, "val_pixel_auc")
    expected = roc_auc_score(truth.flatten().numpy(), probabilities.flatten().numpy())
    for _ in range(2):  # the second epoch forgets the first
        engine.run(list(zip(probabilities.split(batch_size), truth.split(batch_size), strict=True)))
        assert engine.state.metrics["val_pixel_auc"] == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("kind", [ScoreRanking, PixelRanking])
def test_nothing_to_rank(kind):
    metric = kind()
    with pytest.raises(NotComputableError, match="got none"):
        metric.compute()
    for label in (0, 1):
        metric.reset()
        metric.update((torch.rand(5), torch.full((5,), label)))
        assert math.isnan(metric.compute())


@pytest.mark.parametrize("kind", [ScoreRanking, PixelRanking])
def test_a_network_that_answers_no_number(kind):
    metric = kind()
    metric.update((torch.tensor([0.1, 0.9]), torch.tensor([0, 1])))
    metric.update((torch.tensor([0.1, math.nan]), torch.tensor([0, 1])))
    assert math.isnan(metric.compute())
    metric.reset()
    metric.update((torch.tensor([0.1, 0.9]), torch.tensor([0, 1])))
    assert metric.compute() == 1


def test_certain_pixels_are_the_last_of_all():
    metric = PixelRanking()
    metric.update((torch.tensor([0.0, 1.0, 0.5]), torch.tensor([0, 1, 0])))
    assert metric.compute() == 1


@pytest.mark.parametrize(("kind", "tolerance"), [(ScoreRanking, 1e-12), (PixelRanking, 1e-4)])
def test_two_processes_rank_all(tmp_path, kind, tolerance):
    probabilities, truth = random_pixels()

    def work(number):
        metric = kind()
        share = slice(0, 2) if number else slice(2, 9)
        metric.update((probabilities[share], truth[share]))
        torch.save(torch.tensor(metric.compute(), dtype=torch.float64), tmp_path / f"{number}.pt")

    in_processes(work)
    expected = roc_auc_score(truth.flatten().numpy(), probabilities.flatten().numpy())
    for number in range(2):
        assert float(torch.load(tmp_path / f"{number}.pt")) == pytest.approx(expected, abs=tolerance)
