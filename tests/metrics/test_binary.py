import math

import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from sklearn import metrics as sklearn_metrics
from torch import distributed
from torch.multiprocessing import start_processes

from shared.metrics import SCORES, PooledBinaryScores, binary_counts, binary_scores


def random_decisions(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator) < 0.4, torch.rand(shape, generator=generator) < 0.3


def test_counts_by_hand():
    prediction = torch.tensor([1, 1, 1, 0, 0, 0, 0])
    target = torch.tensor([1, 0, 0, 1, 0, 0, 0])
    assert binary_counts(prediction, target).tolist() == [1, 2, 1, 3]
    assert binary_counts(prediction.bool(), target.float()).tolist() == [1, 2, 1, 3]


@pytest.mark.parametrize("dim", [None, 0, -1, (1, 2), ()])
def test_counts_over_dimensions(dim):
    prediction, target = random_decisions((3, 4, 5))
    counts = binary_counts(prediction, target, dim=dim)
    expected_shape = {None: (4,), 0: (4, 5, 4), -1: (3, 4, 4), (1, 2): (3, 4), (): (3, 4, 5, 4)}[dim]
    assert counts.shape == expected_shape
    assert counts.dtype == torch.int64
    assert torch.equal(counts.view(-1, 4).sum(0), binary_counts(prediction, target))


def test_counts_of_nothing():
    assert binary_counts(torch.zeros(0), torch.zeros(0)).tolist() == [0, 0, 0, 0]


def test_scores_equal_scikit_learn():
    prediction, target = random_decisions((1000,))
    scores = binary_scores(binary_counts(prediction, target))
    assert tuple(scores) == SCORES
    expected = {
        "sensitivity": sklearn_metrics.recall_score(target, prediction),
        "specificity": sklearn_metrics.recall_score(target, prediction, pos_label=0),
        "accuracy": sklearn_metrics.accuracy_score(target, prediction),
        "precision": sklearn_metrics.precision_score(target, prediction),
        "f1": sklearn_metrics.f1_score(target, prediction),
        "iou": sklearn_metrics.jaccard_score(target, prediction),
    }
    assert {name: score.item() for name, score in scores.items()} == pytest.approx(expected, abs=1e-12)


def test_iou_follows_from_f1():
    scores = binary_scores(torch.randint(1, 1000, (200, 4), generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(scores["iou"], scores["f1"] / (2 - scores["f1"]))


def test_undefined_ratios_are_nan():
    scores = binary_scores(torch.tensor([0, 0, 0, 9]))
    assert scores["accuracy"] == scores["specificity"] == 1
    assert all(math.isnan(scores[name]) for name in ("sensitivity", "precision", "f1", "iou"))


def test_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match=r"\(2, 3\) like the prediction; got \(3, 2\)"):
        binary_counts(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="target must be 0 or 1; got 255"):
        binary_counts(torch.tensor([1, 0]), torch.tensor([255, 0]))
    with pytest.raises(ValueError, match=r"tp, fp, fn, tn; got \(3,\)"):
        binary_scores(torch.zeros(3))
    with pytest.raises(ValueError, match=r"got \(4, 1\), \(2, 2\)"):
        PooledBinaryScores().update((torch.zeros(4, 1), torch.zeros(2, 2)))


def test_metric_pools_batches_of_different_size():
    probabilities = torch.rand(100, generator=torch.Generator().manual_seed(0))
    target = torch.rand(100, generator=torch.Generator().manual_seed(1)) < 0.3
    metric = PooledBinaryScores()
    for part in (slice(0, 7), slice(7, 60), slice(60, 100)):
        metric.update((probabilities[part, None], target[part].long()))
    expected = binary_scores(binary_counts(probabilities >= 0.5, target))
    balanced = (expected["sensitivity"] + expected["specificity"]).item() / 2
    assert metric.compute() == {name: score.item() for name, score in expected.items()} | {"balanced_accuracy": balanced}
    metric.reset()
    with pytest.raises(NotComputableError, match="got none"):
        metric.compute()


def test_threshold_counts_as_positive_and_may_be_a_logit():
    metric = PooledBinaryScores(threshold=0.0)
    metric.update((torch.tensor([0.0, -0.1]), torch.tensor([1, 0])))
    assert metric.compute()["accuracy"] == 1


@pytest.mark.parametrize("decollate", [True, False])
@pytest.mark.parametrize("image_shape", [(1,), (1, 5, 6)])
def test_in_an_evaluator(decollate, image_shape):
    probabilities = torch.rand(7, *image_shape, generator=torch.Generator().manual_seed(0))
    labels = (torch.rand(7, *image_shape, generator=torch.Generator().manual_seed(1)) < 0.5).long()
    if image_shape == (1,):
        labels = labels.squeeze(1)
    loader = [{"image": probabilities[i : i + 3], "label": labels[i : i + 3]} for i in (0, 3, 6)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=torch.nn.Identity(),
        key_val_metric={"val_pixel_iou": PooledBinaryScores(output_transform=from_engine(["pred", "label"]))},
        decollate=decollate,
    )
    for epoch in (1, 2):
        evaluator.run(global_epoch=epoch)
    counts = binary_counts(probabilities.flatten() >= 0.5, labels.flatten())
    expected = {f"val_pixel_{name}": score.item() for name, score in binary_scores(counts).items()}
    assert {f"val_pixel_{name}" for name in SCORES} == set(expected)
    expected["val_pixel_balanced_accuracy"] = (expected["val_pixel_sensitivity"] + expected["val_pixel_specificity"]) / 2
    assert evaluator.state.metrics == pytest.approx(expected)
    assert evaluator.state.best_metric == pytest.approx(expected["val_pixel_iou"])


@pytest.mark.parametrize("score", [*SCORES, "balanced_accuracy"])
def test_the_score_of_a_name_is_under_this_name(score):
    """The longest that the name ends in: the balanced accuracy is no accuracy."""
    evaluator = Engine(lambda engine, batch: batch)
    PooledBinaryScores().attach(evaluator, f"val_{score}")
    # 3 tp, 1 fp, 1 fn, 5 tn.
    probabilities = torch.tensor([1.0] * 4 + [0.0] * 6)
    evaluator.run([(probabilities, torch.tensor([1, 1, 1, 0, 1, 0, 0, 0, 0, 0]))])
    by_hand = {"sensitivity": 3 / 4, "specificity": 5 / 6, "accuracy": 8 / 10, "precision": 3 / 4, "f1": 6 / 8, "iou": 3 / 5}
    by_hand["balanced_accuracy"] = (3 / 4 + 5 / 6) / 2
    assert evaluator.state.metrics == pytest.approx({f"val_{name}": value for name, value in by_hand.items()})


@pytest.mark.parametrize("name", ["val_dice", "accuracy", "_accuracy", "val_accuracy_", "balanced_accuracy"])
def test_rejects_names_without_a_score(name):
    with pytest.raises(ValueError, match=f"sensitivity.*iou, balanced_accuracy; got '{name}'"):
        SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=[],
            network=torch.nn.Identity(),
            key_val_metric={name: PooledBinaryScores()},
        )


def check_rank(rank, init_file):
    distributed.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    metric = PooledBinaryScores()
    # Rank 0 counts tp and fp, rank 1 three tn: together tp=1, fp=1, tn=3.
    batches = [(torch.tensor([0.9, 0.8]), torch.tensor([1, 0])), (torch.zeros(3), torch.zeros(3))]
    metric.update(batches[rank])
    scores = metric.compute()
    assert (scores["precision"], scores["specificity"], scores["accuracy"]) == (0.5, 0.75, 0.8)
    assert metric.compute() == scores
    distributed.destroy_process_group()


def test_pools_over_two_processes(tmp_path):
    # Forked, since to import everything twice more takes a quarter of a minute.
    start_processes(check_rank, args=(str(tmp_path / "init"),), nprocs=2, start_method="fork")
