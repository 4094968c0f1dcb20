"""Scores of several classes against scikit-learn, and the challenge's score against a loop over pixels."""

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

from shared.metrics import CLASS_SCORES, PooledClassScores, bach_score, bach_score_of_confusion, class_scores, confusion_matrix


def random_classes(shape, num_classes, seed=0):
    """Prediction and truth, of which about half agree."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randint(0, num_classes, shape, generator=generator) for _ in range(2))
    return first, torch.where(torch.rand(shape, generator=generator) < 0.4, first, second)


def scores_of(prediction, target, num_classes):
    scores = class_scores(confusion_matrix(prediction, target, num_classes))
    return {name: score.item() for name, score in scores.items()}


def bach_by_loop(prediction, target, num_classes, epsilon=0.0):
    """Equation 6 as it is printed."""
    distance, worst = 0, 0
    for p, g in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        distance += abs(p - g)
        worst += max(g, abs(g - (num_classes - 1))) * (1 - (1 - (p > 0)) * (1 - (g > 0)))
    return 1 - distance / (worst + epsilon)


def test_confusion_by_hand():
    prediction, target = torch.tensor([[0, 1, 2], [2, 2, 0]]), torch.tensor([[0, 0, 2], [2, 1, 0]])
    confusion = confusion_matrix(prediction, target, 3)
    assert confusion.tolist() == [[2, 1, 0], [0, 0, 1], [0, 0, 2]]
    assert confusion.dtype == torch.int64
    # uint8 indices, as a mask on disk has them, must not wrap around.
    many = torch.full((3,), 15, dtype=torch.uint8)
    assert confusion_matrix(many, many, 16)[15, 15] == 3
    assert confusion_matrix(torch.zeros(0), torch.zeros(0), 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("num_classes", [2, 3, 4, 7])
def test_scores_equal_scikit_learn(num_classes):
    prediction, target = random_classes((2000,), num_classes)
    labels = list(range(num_classes))
    confusion = sklearn_metrics.confusion_matrix(target, prediction, labels=labels)
    assert confusion_matrix(prediction, target, num_classes).tolist() == confusion.tolist()
    foreground = target > 0
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(target, prediction),
        "foreground_accuracy": sklearn_metrics.accuracy_score(target[foreground], prediction[foreground]),
        "macro_f1": sklearn_metrics.f1_score(target, prediction, average="macro"),
        "micro_f1": sklearn_metrics.f1_score(target, prediction, average="micro"),
        "weighted_f1": sklearn_metrics.f1_score(target, prediction, average="weighted"),
        "mean_iou": sklearn_metrics.jaccard_score(target, prediction, average="macro"),
        "released_iou": sklearn_metrics.jaccard_score(target, prediction, labels=labels[1:], average="macro"),
        "bach_score": bach_by_loop(prediction, target, num_classes),
    }
    assert tuple(expected) == CLASS_SCORES
    f1, iou = (score(target, prediction, average=None) for score in (sklearn_metrics.f1_score, sklearn_metrics.jaccard_score))
    expected |= {f"f1_{index}": value for index, value in enumerate(f1)}
    expected |= {f"iou_{index}": value for index, value in enumerate(iou)}
    assert scores_of(prediction, target, num_classes) == pytest.approx(expected, abs=1e-12)


def test_micro_f1_is_the_accuracy_and_iou_follows_from_f1():
    for seed in range(20):
        scores = scores_of(*random_classes((50,), 4, seed), 4)
        assert scores["micro_f1"] == scores["accuracy"]
        for index in range(4):
            assert scores[f"iou_{index}"] == pytest.approx(scores[f"f1_{index}"] / (2 - scores[f"f1_{index}"]), nan_ok=True)


def test_a_class_that_is_absent_has_no_score_and_no_part_in_the_means():
    prediction, target = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 1, 1, 3])
    scores = scores_of(prediction, target, 4)
    assert math.isnan(scores["f1_2"])
    assert math.isnan(scores["iou_2"])
    # Classes 0 and 1: one right, one confusion; class 3: all right.
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert scores["mean_iou"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert scores["weighted_f1"] == pytest.approx(1 / 4 * 2 / 3 + 2 / 4 * 2 / 3 + 1 / 4)
    # The released code counts an absent class as found, and no background.
    assert scores["released_iou"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    # The same of scikit-learn, which takes the classes that it sees.
    assert scores["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(target, prediction, average="macro"))
    assert scores["mean_iou"] == pytest.approx(sklearn_metrics.jaccard_score(target, prediction, average="macro"))


def test_a_class_that_is_only_predicted_scores_zero():
    scores = scores_of(torch.tensor([0, 2]), torch.tensor([0, 0]), 3)
    assert scores["f1_2"] == scores["iou_2"] == 0
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["mean_iou"] == pytest.approx((1 / 2 + 0) / 2)
    # It has no true pixel to weigh by.
    assert scores["weighted_f1"] == pytest.approx(2 / 3)


def test_background_only():
    scores = scores_of(torch.zeros(9), torch.zeros(9), 4)
    ones = ("accuracy", "macro_f1", "micro_f1", "weighted_f1", "mean_iou", "released_iou", "bach_score", "f1_0", "iou_0")
    assert all(scores[name] == 1 for name in ones)
    assert all(math.isnan(score) for name, score in scores.items() if name not in ones)


def test_no_pixels_at_all():
    scores = scores_of(torch.zeros(0), torch.zeros(0), 2)
    assert scores.pop("bach_score") == 1
    assert all(math.isnan(score) for score in scores.values())


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [(0, 3, 0), (3, 0, 0), (1, 0, 2 / 3), (2, 1, 1 / 2), (3, 1, 0), (0, 1, 1 / 2), (2, 3, 2 / 3), (0, 0, 1)],
)
def test_bach_score_of_one_pixel(predicted, true, expected):
    assert bach_score(torch.tensor([predicted]), torch.tensor([true])).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_bach_score_of_every_pair(num_classes):
    for predicted in range(num_classes):
        for true in range(num_classes):
            score = bach_score(torch.tensor([predicted]), torch.tensor([true]), num_classes).item()
            # The constant of the paper gives 1 to what is rightly normal.
            expected = bach_by_loop(torch.tensor([predicted]), torch.tensor([true]), num_classes, epsilon=1e-15)
            assert score == pytest.approx(expected, abs=1e-12)
            assert 0 <= score <= 1
            assert (score == 1) == (predicted == true)


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5])
def test_bach_score_equals_a_loop(num_classes):
    for seed in range(5):
        prediction, target = random_classes((3, 7, 11), num_classes, seed)
        score = bach_score(prediction, target, num_classes)
        assert score.dtype == torch.float64
        assert score.item() == pytest.approx(bach_by_loop(prediction, target, num_classes), abs=1e-12)
        assert score == bach_score_of_confusion(confusion_matrix(prediction, target, num_classes))


def test_bach_score_ignores_what_is_rightly_normal():
    prediction, target = random_classes((500,), 4)
    counts = (prediction > 0) | (target > 0)
    assert bach_score(prediction, target) == bach_score(prediction[counts], target[counts])


def test_bach_score_of_two_classes_is_the_iou():
    """|p - g| / 1 over all pixels that are tumour in either."""
    scores = scores_of(*random_classes((500,), 2), 2)
    assert scores["bach_score"] == pytest.approx(scores["iou_1"], abs=1e-12)


def test_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match=r"target must be \(2, 3\) like the prediction; got \(3, 2\)"):
        confusion_matrix(torch.zeros(2, 3), torch.zeros(3, 2), 2)
    with pytest.raises(ValueError, match="target must be class indices 0 to 3; got 1 to 255"):
        bach_score(torch.tensor([0, 1]), torch.tensor([1, 255]))
    with pytest.raises(ValueError, match="prediction must be class indices 0 to 1; got -1 to 0"):
        confusion_matrix(torch.tensor([0, -1]), torch.tensor([0, 1]), 2)
    for shape in ((4,), (3, 4)):
        with pytest.raises(ValueError, match=r"must be \(C, C\); got"):
            class_scores(torch.ones(shape))
    metric = PooledClassScores(3)
    with pytest.raises(ValueError, match=r"logits must be \(B, 3, \.\.\.\); got \(2, 4, 5\)"):
        metric.update((torch.zeros(2, 4, 5), torch.zeros(2, 5)))
    with pytest.raises(ValueError, match=r"target must be \(2, 5\) like the prediction; got \(2, 1, 5\)"):
        metric.update((torch.zeros(2, 3, 5), torch.zeros(2, 1, 5)))


def batches_of(num_classes, image_shape=(5, 6)):
    """Logits and truth of seven images, in batches of three."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, num_classes, *image_shape, generator=generator)
    target = torch.randint(0, num_classes, (7, *image_shape), generator=generator)
    return [(logits[start : start + 3], target[start : start + 3]) for start in (0, 3, 6)]


def expected_scores(batches, num_classes):
    prediction = torch.cat([logits.argmax(1) for logits, _ in batches])
    return scores_of(prediction, torch.cat([target for _, target in batches]), num_classes)


@pytest.mark.parametrize("image_shape", [(), (5, 6)])
def test_attached_to_an_engine(image_shape):
    batches = batches_of(3, image_shape)
    engine = Engine(lambda engine, batch: {"pred": batch[0], "label": batch[1]})
    metric = PooledClassScores(3, output_transform=lambda output: (output["pred"], output["label"]))
    metric.attach(engine, "val_pixel_bach_score")
    expected = {f"val_pixel_{name}": score for name, score in expected_scores(batches, 3).items()}
    assert len(expected) == len(CLASS_SCORES) + 6
    for _ in range(2):  # each run counts again
        engine.run(batches)
        assert engine.state.metrics == expected
    metric.reset()
    with pytest.raises(NotComputableError, match="got none"):
        metric.compute()


@pytest.mark.parametrize("decollate", [True, False])
def test_in_an_evaluator(decollate):
    batches = batches_of(4)
    metric = PooledClassScores(4, output_transform=from_engine(["pred", "label"]))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{"image": logits, "label": target} for logits, target in batches],
        network=torch.nn.Identity(),
        key_val_metric={"val_foreground_accuracy": metric},
        decollate=decollate,
    )
    for epoch in (1, 2):
        evaluator.run(global_epoch=epoch)
    expected = expected_scores(batches, 4)
    assert evaluator.state.metrics == {f"val_{name}": score for name, score in expected.items()}
    assert evaluator.state.best_metric == expected["foreground_accuracy"]


def test_half_logits_and_small_integers():
    logits, target = batches_of(3)[0]
    metric, other = PooledClassScores(3), PooledClassScores(3)
    metric.update((logits.bfloat16(), target.to(torch.uint8)))
    other.update((logits.bfloat16().float(), target))
    assert metric.compute() == other.compute()


def test_nan_scores_reach_the_metrics():
    engine = Engine(lambda engine, batch: batch)
    PooledClassScores(3).attach(engine, "val_accuracy")
    # Everything is background and found to be.
    engine.run([(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0]))])
    assert engine.state.metrics["val_accuracy"] == engine.state.metrics["val_bach_score"] == 1
    assert math.isnan(engine.state.metrics["val_foreground_accuracy"])
    assert math.isnan(engine.state.metrics["val_f1_2"])


@pytest.mark.parametrize("score", CLASS_SCORES)
def test_every_score_may_give_the_name(score):
    engine = Engine(lambda engine, batch: batch)
    PooledClassScores(2).attach(engine, f"val_image_{score}")
    engine.run(batches_of(2))
    names = {*CLASS_SCORES, "f1_0", "f1_1", "iou_0", "iou_1"}
    assert set(engine.state.metrics) == {f"val_image_{name}" for name in names}


@pytest.mark.parametrize(
    "name",
    ["val_dice", "val_f1_1", "accuracy", "_accuracy", "foreground_accuracy", "_foreground_accuracy", "val_accuracy_"],
)
def test_rejects_names_without_beginning_or_score(name):
    with pytest.raises(ValueError, match=f"accuracy, .*bach_score; got '{name}'"):
        PooledClassScores(2).attach(Engine(lambda engine, batch: batch), name)


def check_rank(rank, init_file):
    distributed.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    metric = PooledClassScores(4)
    batches = batches_of(4)
    # Shares of different size: two batches and one.
    for logits, target in batches[rank::2]:
        metric.update((logits, target))
    scores = metric.compute()
    assert scores == expected_scores(batches, 4)
    assert metric.compute() == scores
    distributed.destroy_process_group()


def test_pools_over_two_processes(tmp_path):
    # Forked, since to import everything twice more takes a quarter of a minute.
    start_processes(check_rank, args=(str(tmp_path / "init"),), nprocs=2, start_method="fork")
