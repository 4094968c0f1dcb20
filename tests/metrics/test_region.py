import math

import pytest
import torch
from ignite.exceptions import NotComputableError
from monai.engines import SupervisedEvaluator
from torch import distributed
from torch.multiprocessing import start_processes

from shared.metrics import MeanRegionF, region_f_measure


def random_maps(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator) < 0.4, torch.rand(shape, generator=generator) < 0.3


def naive_f(prediction, target, label):
    """Precision and recall of sets of pixels, as the paper writes them."""
    pixels = [(row, column) for row in range(prediction.shape[0]) for column in range(prediction.shape[1])]
    found = {place for place in pixels if bool(prediction[place]) == bool(label)}
    true = {place for place in pixels if not label or target[place]}
    if not found or not true or not found & true:
        return 0.0
    precision, recall = len(found & true) / len(found), len(found & true) / len(true)
    return 2 * precision * recall / (precision + recall)


def test_tumour_by_hand():
    prediction = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]])
    target = torch.tensor([[0, 1, 1, 1], [1, 0, 0, 0]])
    # H = 3, G = 4, both 2: precision 2/3, recall 1/2.
    f = region_f_measure(prediction, target, 1)
    assert f.dtype == torch.float64
    assert f.shape == ()
    assert f.item() == pytest.approx(4 / 7, abs=1e-15)


@pytest.mark.parametrize(("normal_share", "expected"), [(0.9, 0.9474), (0.5, 0.6667), (1.0, 1.0), (0.0, 0.0)])
def test_normal_images_score_what_is_predicted_normal(normal_share, expected):
    prediction = (torch.arange(100).reshape(10, 10) >= 100 * normal_share).float()
    assert region_f_measure(prediction, torch.zeros(10, 10), 0).item() == pytest.approx(expected, abs=5e-5)


def test_the_target_of_a_normal_image_does_not_count():
    prediction, target = random_maps((6, 7))
    scores = [region_f_measure(prediction, other, 0) for other in (target, ~target, torch.zeros(6, 7))]
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize(("predicted", "true"), [(0, 0), (0, 1), (1, 0)])
def test_nothing_predicted_or_nothing_true_is_0(predicted, true):
    prediction, target = torch.full((4, 4), predicted), torch.full((4, 4), true)
    assert region_f_measure(prediction, target, torch.tensor(1)) == 0


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 1, 6, 7)])
def test_a_batch_equals_the_definition_image_by_image(shape):
    prediction, target = random_maps(shape)
    labels = torch.tensor([1, 0, 1, 1, 0])
    f = region_f_measure(prediction, target, labels)
    expected = [
        naive_f(one.view(6, 7), true.view(6, 7), label) for one, true, label in zip(prediction, target, labels, strict=True)
    ]
    assert f.dtype == torch.float64
    assert f.tolist() == pytest.approx(expected, abs=1e-12)
    alone = [region_f_measure(prediction[i].view(6, 7), target[i].view(6, 7), labels[i]).item() for i in range(5)]
    assert f.tolist() == alone


def test_labels_may_be_of_any_type():
    prediction, target = random_maps((2, 4, 4))
    scores = [region_f_measure(prediction, target, torch.tensor(labels)) for labels in ([1, 0], [1.0, 0.0], [True, False])]
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])


@pytest.mark.parametrize(
    ("shape", "target_shape", "label", "words"),
    [
        ((4,), (4,), 1, r"prediction must be \(H, W\), .* got \(4,\)"),
        ((2, 3, 4, 4), (2, 3, 4, 4), torch.zeros(2), r"prediction must be .* got \(2, 3, 4, 4\)"),
        ((4, 4), (4, 5), 1, r"target must be \(4, 4\) .* got \(4, 5\)"),
        ((4, 4), (4, 4), torch.zeros(1), r"label must be \(\), one per image; got \(1,\)"),
        ((2, 4, 4), (2, 4, 4), torch.zeros(3), r"label must be \(2,\), one per image; got \(3,\)"),
        ((2, 4, 4), (2, 4, 4), 1, r"label must be \(2,\), one per image; got \(\)"),
        ((4, 4), (4, 4), 2, "label must be 0 or 1; got 2"),
    ],
)
def test_rejects_what_does_not_fit(shape, target_shape, label, words):
    with pytest.raises(ValueError, match=words):
        region_f_measure(torch.zeros(shape), torch.zeros(target_shape), label)


def test_rejects_probabilities():
    with pytest.raises(ValueError, match=r"prediction must be 0 or 1; got 0\.5"):
        region_f_measure(torch.full((2, 2), 0.5), torch.zeros(2, 2), 1)


def test_the_mean_is_over_images_and_not_over_pixels():
    probabilities = torch.rand(7, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    targets = torch.rand(7, 1, 5, 6, generator=torch.Generator().manual_seed(1)) < 0.4
    labels = torch.tensor([1, 0, 1, 1, 0, 1, 0])
    metric = MeanRegionF()
    for part in (slice(0, 2), slice(2, 7)):
        metric.update((probabilities[part], targets[part], labels[part].float()))
    f = region_f_measure(probabilities >= 0.5, targets, labels)
    expected = {"": f.mean().item(), "_ca": f[labels == 1].mean().item(), "_nc": f[labels == 0].mean().item()}
    assert metric.compute() == pytest.approx(expected)
    metric.reset()
    with pytest.raises(NotComputableError, match="got none"):
        metric.compute()


def test_a_class_without_images_is_nan():
    metric = MeanRegionF()
    metric.update((torch.zeros(2, 3, 3), torch.zeros(2, 3, 3), torch.zeros(2)))
    scores = metric.compute()
    assert (scores[""], scores["_nc"]) == (1, 1)
    assert math.isnan(scores["_ca"])


def test_in_an_evaluator():
    probabilities = torch.rand(6, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    masks = (torch.rand(6, 1, 5, 6) < 0.5) & (labels == 1)[:, None, None, None]
    loader = [{"image": probabilities[i : i + 4], "label": masks[i : i + 4], "class": labels[i : i + 4]} for i in (0, 4)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=torch.nn.Identity(),
        prepare_batch=lambda batch, *_, **__: (batch["image"], (batch["label"], batch["class"])),
        key_val_metric={"val_region_f": MeanRegionF(output_transform=lambda output: (output["pred"], *output["label"]))},
        decollate=False,
    )
    for epoch in (1, 2):
        evaluator.run(global_epoch=epoch)
    f = region_f_measure(probabilities >= 0.5, masks, labels)
    expected = {"val_region_f": f.mean(), "val_region_f_ca": f[labels == 1].mean(), "val_region_f_nc": f[labels == 0].mean()}
    assert evaluator.state.metrics == pytest.approx({name: value.item() for name, value in expected.items()})
    assert evaluator.state.best_metric == pytest.approx(f.mean().item())


def check_rank(rank, init_file):
    distributed.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    metric = MeanRegionF()
    # Rank 0 has one tumour image of F 1, rank 1 two normal ones of F 0 and 1.
    prediction = [torch.ones(1, 2, 2), torch.tensor([1.0, 0.0])[:, None, None].expand(2, 2, 2)][rank]
    metric.update((prediction, torch.ones_like(prediction), torch.tensor([[1], [0, 0]][rank])))
    assert metric.compute() == pytest.approx({"": 2 / 3, "_ca": 1.0, "_nc": 0.5})
    distributed.destroy_process_group()


def test_pools_over_two_processes(tmp_path):
    start_processes(check_rank, args=(str(tmp_path / "init"),), nprocs=2, start_method="fork")
