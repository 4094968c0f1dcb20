import math

import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from sklearn.metrics import roc_auc_score

from shared.metrics.bag_ranking import BagRanking, bag_scores, proxy_tiles, top_share, top_share_mean

from ..engines.test_distributed import in_processes


def random_slides(num_slides=7, num_tiles=30, seed=0):
    """Logits ``(S, n)``, labels ``(S,)`` and true shares ``(S, n)``, with many equal scores."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_slides) % 2
    shares = torch.rand(num_slides, num_tiles, generator=generator) * labels[:, None]
    logits = torch.randn(num_slides, num_tiles, generator=generator) + 1.5 * shares
    return (logits * 4).round() / 4, labels, shares


def reference(logits, labels, alpha, shares):
    """The same in lists and scikit-learn."""
    means, proxies, kinds = [], [], []
    for slide, label in zip(logits.tolist(), labels.tolist(), strict=True):
        count = max(1, math.floor(len(slide) * alpha + 1e-9))
        best = sorted(slide, reverse=True)[:count]
        means.append(sum(best) / count)
        proxies += best if label else slide
        kinds += [label] * (count if label else len(slide))
    return {
        "slide_auc": roc_auc_score(labels.numpy(), means),
        "proxy_auc": roc_auc_score(kinds, proxies),
        "tile_auc": roc_auc_score((shares >= 0.5).flatten().numpy(), logits.flatten().numpy()),
    }


@pytest.mark.parametrize(
    ("num_tiles", "share", "count"), [(150, 0.2, 30), (4, 0.2, 1), (150, 1 - 0.8, 30), (5, 0.7, 3), (3, 1.0, 3)]
)
def test_counts_of_the_top(num_tiles, share, count):
    scores = torch.randperm(num_tiles).float()
    assert top_share(scores, share).tolist() == list(range(num_tiles - 1, num_tiles - 1 - count, -1))


def test_top_share_mean_by_hand():
    assert top_share_mean(torch.tensor([0.0, 0.5, 1.0, 0.25]), share=0.5) == 0.75


def test_by_hand():
    scores = [torch.tensor([0.1, 0.6, 0.2, 0.3]), torch.tensor([0.9, 0.1, 0.5, 0.1])]
    proxies, kinds = proxy_tiles(scores, [0, 1], share=0.5)
    torch.testing.assert_close(proxies, torch.tensor([0.1, 0.6, 0.2, 0.3, 0.9, 0.5]))
    assert kinds.tolist() == [0, 0, 0, 0, 1, 1]
    found = bag_scores(scores, [0, 1], share=0.5, tumour_shares=[torch.zeros(4), torch.tensor([1.0, 0.49, 0.0, 0.5])])
    # The slides' means are 0.45 and 0.7. Of 2 x 4 proxy pairs only (0.5, 0.6) is lost. Tumour tiles are 0.9 and 0.1: the first
    # wins all 6 pairs; the second has 2 of its own score (each a half) and 4 above.
    assert found == pytest.approx({"slide_auc": 1.0, "proxy_auc": 7 / 8, "tile_auc": 7 / 12})


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.5, 1.0])
def test_against_scikit_learn(alpha):
    logits, labels, shares = random_slides()
    assert bag_scores(logits, labels.tolist(), alpha, shares) == pytest.approx(reference(logits, labels, alpha, shares))


def test_bags_of_different_lengths():
    scores = [torch.tensor([0.2]), torch.tensor([0.9, 0.8, 0.1]), torch.tensor([0.3, 0.4])]
    assert bag_scores(scores, [0, 1, 0], share=0.67) == {"slide_auc": 1.0, "proxy_auc": 1.0}


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_nan(label):
    found = bag_scores([torch.rand(4), torch.rand(4)], [label, label], 0.5, [torch.full((4,), float(label))] * 2)
    assert all(math.isnan(value) for value in found.values())


def test_without_masks_there_is_no_tile_auc():
    logits, labels, _ = random_slides()
    assert set(bag_scores(logits, labels.tolist(), 0.2)) == {"slide_auc", "proxy_auc"}


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_metric_over_batches(batch_size):
    logits, labels, shares = random_slides()
    batches = list(zip(*(values.split(batch_size) for values in (logits, labels, shares)), strict=True))
    engine = Engine(lambda _, batch: batch)
    BagRanking(0.2).attach(engine, "val_slide_auc")
    for _ in range(2):  # the second epoch forgets the first
        engine.run(batches)
        expected = bag_scores(logits, labels.tolist(), 0.2, shares)
        assert engine.state.metrics == {f"val_{name}": value for name, value in expected.items()}


def test_metric_without_masks_and_with_half_precision():
    logits, labels, _ = random_slides()
    metric = BagRanking(0.2)
    metric.update((logits.bfloat16(), labels.float(), None))
    assert metric.compute() == bag_scores(logits, labels.tolist(), 0.2)


def test_metric_leaves_tiles_out_when_some_slides_have_no_mask():
    logits, labels, shares = random_slides()
    metric = BagRanking(0.2)
    metric.update((logits[:4], labels[:4], shares[:4]))
    metric.update((logits[4:], labels[4:], None))
    assert set(metric.compute()) == {"slide_auc", "proxy_auc"}


def test_metric_needs_slides_and_a_name():
    with pytest.raises(NotComputableError, match="at least one slide"):
        BagRanking(0.2).compute()
    with pytest.raises(ValueError, match="<prefix>_slide_auc; got 'val_auc'"):
        BagRanking(0.2).attach(Engine(lambda _, batch: batch), "val_auc")


def test_two_processes_score_all_slides(tmp_path):
    logits, labels, shares = random_slides()

    def work(number):
        for case, slides in enumerate(([0, 2, 3], [1, 4, 5, 6]) if number else ([1, 4, 5, 6], [0, 2, 3])):
            metric = BagRanking(0.2)
            metric.update((logits[slides], labels[slides], shares[slides]))
            torch.save(metric.compute(), tmp_path / f"{case}_{number}.pt")
        # Also where a process has no slide at all.
        metric = BagRanking(0.2)
        if number:
            metric.update((logits, labels, shares))
        torch.save(metric.compute(), tmp_path / f"2_{number}.pt")

    in_processes(work)
    expected = bag_scores(logits, labels.tolist(), 0.2, shares)
    for case in range(3):
        for number in range(2):
            assert torch.load(tmp_path / f"{case}_{number}.pt") == expected
