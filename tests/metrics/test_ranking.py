import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from shared.metrics import (
    binary_counts,
    binary_scores,
    counts_at,
    roc_auc,
    roc_auc_of_histograms,
    score_histograms,
    youden_threshold_of_histograms,
)

INF = math.inf


def random_ranking(seed, num_scores=100, num_distinct=20):
    """Scores with ties, higher for positives, and labels of which both classes occur."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(num_scores, generator=generator) < 0.4
    labels[:2] = torch.tensor([True, False])
    scores = torch.randn(num_scores, generator=generator) + labels
    return (scores * num_distinct / 6).round() / 4, labels


def naive_auc(scores, labels):
    pairs = [(p, n) for p in scores[labels].tolist() for n in scores[~labels].tolist()]
    return sum((p > n) + (p == n) / 2 for p, n in pairs) / len(pairs)


def test_auc_by_hand():
    # Of the 6 pairs, 0.8 beats all three negatives; 0.4 beats 0.1, ties with 0.4 and loses to 0.6.
    scores, labels = torch.tensor([0.8, 0.4, 0.1, 0.4, 0.6]), torch.tensor([1, 1, 0, 0, 0])
    for typed in (labels, labels.bool(), labels.double(), labels.to(torch.uint8)):
        area = roc_auc(scores, typed)
        assert (area.shape, area.dtype) == ((), torch.float64)
        assert area.item() == pytest.approx(4.5 / 6, abs=1e-15)


@pytest.mark.parametrize("seed", range(30))
def test_auc_equals_scikit_learn_and_pairs(seed):
    scores, labels = random_ranking(seed, num_scores=5 + 7 * seed, num_distinct=2 + seed)
    area = roc_auc(scores, labels).item()
    assert area == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert area == pytest.approx(naive_auc(scores, labels), abs=1e-12)
    assert area + roc_auc(-scores, labels).item() == pytest.approx(1, abs=1e-12)


def test_auc_of_infinite_logits():
    scores = torch.tensor([-INF, -INF, 0.0, INF, INF, 3.0])
    labels = torch.tensor([False, True, False, True, False, True])
    assert roc_auc(scores, labels).item() == pytest.approx(naive_auc(scores, labels), abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8, torch.int64])
def test_auc_of_other_types(dtype):
    scores, labels = random_ranking(0)
    scores = (scores * 4 + 100).to(dtype)
    assert roc_auc(scores, labels).item() == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores.double()), abs=1e-12)


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1, 1]])
def test_auc_without_a_class_is_nan(labels):
    labels = torch.tensor(labels, dtype=torch.float32)
    scores = torch.rand(len(labels))
    assert roc_auc(scores, labels).isnan()
    assert roc_auc_of_histograms(score_histograms(scores.to(torch.uint8), labels)).isnan()
    with pytest.raises(ValueError, match=f"got {int(labels.sum())} positives and {int((1 - labels).sum())} negatives"):
        youden_threshold_of_histograms(score_histograms(scores.to(torch.uint8), labels))


def test_auc_ignores_the_gradient():
    assert not roc_auc(torch.tensor([0.1, 0.9], requires_grad=True), torch.tensor([0, 1])).requires_grad


def test_rejects_what_is_no_ranking():
    with pytest.raises(ValueError, match=r"both be \(n,\); got \(2, 1\), \(2, 1\)"):
        roc_auc(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"got \(3,\), \(2,\)"):
        roc_auc(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="got NaN 2 times"):
        roc_auc(torch.tensor([0.0, math.nan, math.nan]), torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match="labels must be 0 or 1; got 2"):
        roc_auc(torch.zeros(3), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="labels must be 0 or 1; got nan"):
        roc_auc(torch.zeros(2), torch.tensor([0, math.nan]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_histograms_equal_numpy(dtype):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 256, (3, 1, 41, 53), generator=generator, dtype=torch.uint8)
    targets = torch.rand(scores.shape, generator=generator) < 0.2
    histograms = score_histograms(scores, targets.to(dtype))
    assert (histograms.shape, histograms.dtype) == ((2, 256), torch.int64)
    for target, histogram in enumerate(histograms):
        assert np.array_equal(histogram, np.bincount(scores[targets == target], minlength=256))


def test_histograms_pool_slides_of_different_size():
    generator = torch.Generator().manual_seed(0)
    slides = [
        torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in ((20, 30), (7, 9), (1, 500), (0, 3))
    ]
    masks = [torch.rand(slide.shape, generator=generator) * 256 < slide for slide in slides]
    pooled = sum(score_histograms(slide, mask) for slide, mask in zip(slides, masks, strict=True))
    scores, labels = (torch.cat([values.flatten() for values in parts]) for parts in (slides, masks))
    assert roc_auc_of_histograms(pooled) == roc_auc(scores, labels)
    assert roc_auc_of_histograms(pooled).item() == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)
    for threshold in (0, 1, 128, 255):
        assert torch.equal(counts_at(pooled, threshold), binary_counts(scores >= threshold, labels))


def test_histograms_of_billions_do_not_overflow():
    histograms = torch.tensor([[4, 1, 0], [0, 1, 4]]) * 10**10
    assert roc_auc_of_histograms(histograms).item() == pytest.approx(1 - 0.2 * 0.2 / 2, abs=1e-15)


def test_counts_at_the_extremes_feed_binary_scores():
    histograms = torch.tensor([[5, 1, 0], [0, 2, 3]])
    assert counts_at(histograms, 0).tolist() == [5, 6, 0, 0]
    assert counts_at(histograms, 3).tolist() == [0, 0, 5, 6]
    scores = binary_scores(counts_at(histograms, 2))
    assert (scores["sensitivity"], scores["specificity"]) == (0.6, 1)


def test_rejects_what_are_no_histograms():
    with pytest.raises(ValueError, match=r"uint8; got torch.float32"):
        score_histograms(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"\(2, 3\) like the scores; got \(3, 2\)"):
        score_histograms(torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(3, 2))
    for wrong in (255, -1):
        with pytest.raises(ValueError, match=f"targets must be 0 or 1; got {wrong}"):
            score_histograms(torch.zeros(2, dtype=torch.uint8), torch.tensor([0, wrong]))
    with pytest.raises(ValueError, match=r"negatives, positives; got \(3, 2\)"):
        roc_auc_of_histograms(torch.zeros(3, 2))
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match=rf"in 0 \.\.\. 3; got {wrong}"):
            counts_at(torch.zeros(2, 3), wrong)


def youden(scores, labels):
    """The best level of scores, which are whole numbers of at least 0."""
    levels, labels = torch.as_tensor(scores), torch.as_tensor(labels)
    counts = [torch.bincount(levels[labels == label], minlength=int(levels.max()) + 1) for label in (0, 1)]
    return youden_threshold_of_histograms(torch.stack(counts))


def test_youden_by_hand():
    # At 5 both positives but one of three negatives: J = 1 - 1/3; at 6 one positive, no negative: J = 1/2. 3 and 4 are no scores.
    assert youden([1, 2, 5, 6, 5], [0, 0, 0, 1, 1]) == 4


def test_youden_takes_the_highest_of_equals():
    # 5 finds one positive of two, 1 both, at the cost of the one negative of two in between: J = 1/2 twice.
    assert youden([0, 2, 4, 6], [0, 1, 0, 1]) == 5


@pytest.mark.parametrize("scores", [[1, 0], [2, 2]])
def test_youden_of_what_ranks_no_better_than_chance_calls_all_positive(scores):
    assert youden(scores, [0, 1]) <= min(scores)


@pytest.mark.parametrize("seed", range(30))
def test_youden_equals_scikit_learn(seed):
    scores, labels = random_ranking(seed, num_scores=5 + 7 * seed, num_distinct=2 + seed)
    levels = ((scores - scores.min()) * 4).long()
    found = youden(levels, labels)
    fpr, tpr, thresholds = sklearn_metrics.roc_curve(labels, levels, drop_intermediate=False)
    reached = binary_scores(binary_counts(levels >= found, labels))
    assert (reached["sensitivity"] + reached["specificity"] - 1).item() == pytest.approx((tpr - fpr).max(), abs=1e-12)
    # scikit-learn's own thresholds are scores, from high to low after a first infinite one: the first best is the upper end.
    upper = thresholds[1:][np.isclose((tpr - fpr)[1:], (tpr - fpr).max(), atol=1e-12)][0]
    below = levels[levels < upper]
    assert found == ((int(below.max()) + 1 if len(below) else 0) + upper) // 2


def test_youden_of_histograms_of_slides_with_many_pixels():
    counts = 2**40
    assert youden_threshold_of_histograms(torch.tensor([[counts, 0, 0, 0], [0, 0, counts, 1]])) == 1
    with pytest.raises(ValueError, match="need both classes"):
        youden_threshold_of_histograms(torch.tensor([[1, 2], [0, 0]]))
