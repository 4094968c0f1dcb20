"""Slides scored and ranked by a network's word on their bags: by hand, and as scikit-learn counts."""

import pytest
import torch
from monai.data import Dataset
from sklearn.metrics import accuracy_score, roc_auc_score
from torch import nn

from shared.engines import slide_validator
from shared.evaluation import MapEvaluation, SlideScores
from shared.networks import ProbabilityEnsemble


class MeanOfBag(nn.Module):
    """A slide's logit is the mean of its instances' first channel, and their map's logits are these."""

    def __init__(self, offset=0.0):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, bags):
        logits = bags[:, :, 0, 0, 0].float() + self.offset
        return {"slide_logits": logits.mean(dim=1), "map_logits": logits}


class Bags(Dataset):
    """Bags of different sizes, without slides."""

    def __init__(self, with_shares=True):
        generator = torch.Generator().manual_seed(0)
        self.bags = [torch.randn(5 + index, 2, 1, 1, generator=generator).half() for index in range(7)]
        self.shares = [torch.rand(len(bag), generator=generator) for bag in self.bags]
        super().__init__([{"image": f"slide_{index}", "label": index % 2} for index in range(7)])
        self.with_shares, self.epoch = with_shares, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def draw(self, index, occurrence=0):
        item = {"tiles": self.bags[index], "label": self.data[index]["label"], "index": index}
        return item | ({"tumour_share": self.shares[index]} if self.with_shares else {})

    def _transform(self, index):
        return self.draw(index)


def logits_of(dataset):
    return [float(bag[:, 0, 0, 0].float().mean()) for bag in dataset.bags]


def test_slides_in_their_order():
    dataset = Bags()
    expected = torch.tensor(logits_of(dataset)).sigmoid().tolist()
    assert SlideScores(dataset, MeanOfBag(), "cpu").run() == pytest.approx(expected, abs=1e-6)


def test_several_networks_answer_with_the_mean_of_their_probabilities():
    dataset = Bags()
    together = SlideScores(dataset, ProbabilityEnsemble([MeanOfBag(-1.0), MeanOfBag(2.0)]), "cpu").run()
    logits = torch.tensor(logits_of(dataset))
    assert together == pytest.approx((((logits - 1).sigmoid() + (logits + 2).sigmoid()) / 2).tolist(), abs=1e-6)


def test_scores_of_other_slides_are_refused(tmp_path):
    scores = SlideScores(Bags(), MeanOfBag(), "cpu")
    with pytest.raises(
        ValueError, match="slide_scores belong to other slides than the evaluated records, or are in another order"
    ):
        MapEvaluation(tmp_path, scores.dataset.data[::-1], None, None, 0.2, "none", slide_scores=scores)


@pytest.mark.parametrize("with_shares", [True, False])
def test_validation_ranks_slides_and_where_known_their_instances(with_shares):
    dataset = Bags(with_shares)
    validator = slide_validator(dataset, MeanOfBag(), "cpu")
    validator.run()
    metrics, logits, labels = validator.state.metrics, logits_of(dataset), [record["label"] for record in dataset.data]
    assert metrics["val_slide_auc"] == pytest.approx(roc_auc_score(labels, logits))
    assert metrics["val_slide_accuracy"] == pytest.approx(accuracy_score(labels, [logit >= 0 for logit in logits]))
    assert ("val_tile_auc" in metrics) == with_shares
    if with_shares:
        instances = torch.cat([bag[:, 0, 0, 0].float() for bag in dataset.bags])
        assert metrics["val_tile_auc"] == pytest.approx(roc_auc_score(torch.cat(dataset.shares) >= 0.5, instances))
