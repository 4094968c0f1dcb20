"""A training that several processes share ends with the weights of one that has every image to itself.

With plain gradient descent and group normalisation, of which nothing differs but the order in which sums are added up.
"""

from functools import partial

import pytest
import torch
from torch import nn

from shared.data import PairedLoader, RegionDataset, RegionLoader
from shared.engines import (
    ConstrainedRetrainInferer,
    JointInferer,
    SelectedInstanceInferer,
    bag_and_label,
    constrained_instances,
    masked_and_labelled,
)
from shared.engines.inferers import BagInferer
from shared.losses import AlphaBetaLoss, ConstrainedRetrainLoss, JointSegClsLoss
from shared.networks import PixelNormalization
from shared.networks.encoded.encoded_network import EncodedNetwork

from .conftest import in_processes

SGD = partial(torch.optim.SGD, lr=0.1)


def features():
    torch.manual_seed(0)
    return [PixelNormalization(), nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU()]


def classifier():
    return nn.Sequential(*features(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))


class SegCls(nn.Module):
    """Classes of pixels and of images from the same features."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*features())
        self.pixels, self.images = nn.Conv2d(8, 2, 1), nn.Linear(8, 2)

    def forward(self, images, labelled):
        maps, means = self.pixels(self.features(images)), self.features(labelled).mean(dim=(2, 3))
        return {"pixel_logits": maps, "image_logits": self.images(means)}


def tiles_of_slides(batch, *_, **__):
    """Images as slides, their quarters as tiles."""
    quarters = batch["image"].float().unfold(2, 4, 4).unfold(3, 4, 4)
    return quarters.permute(0, 2, 3, 1, 4, 5).flatten(1, 2), batch["label"].float()


def options_of(kind, records):
    """Eleven images in steps of six and five: two processes have 3 and 3, 3 and 2; five have 2, 1, 1, 1, 1 and one each. Of the
    second kind of images there are seven, in one step."""

    def loader(batch_size=6, rows=records[:11], pixel_labels=None, **region):
        return RegionLoader(RegionDataset([{**row, **region} for row in rows], pixel_labels=pixel_labels), batch_size)

    instances = {"x": 4, "y": 0, "width_px": 4, "height_px": 4}
    if kind == "images":
        return {"train_data_loader": loader(), "network": classifier()}
    if kind == "picked instances":
        inferer, loss = SelectedInstanceInferer("max_min", 2), nn.BCEWithLogitsLoss()
        options = {"inferer": inferer, "prepare_batch": bag_and_label, "loss_function": loss}
        return {"train_data_loader": loader(), "network": classifier(), **options}
    if kind == "tiles of slides":
        options = {"inferer": BagInferer(), "prepare_batch": tiles_of_slides, "loss_function": AlphaBetaLoss(0.25, 0.25)}
        return {"train_data_loader": loader(), "network": classifier(), **options}
    if kind == "instances and images":
        paired = PairedLoader({"instances": loader(**instances), "images": loader(7, records[:7])}, leading="instances")
        options = {"inferer": ConstrainedRetrainInferer(2), "prepare_batch": constrained_instances}
        return {
            "train_data_loader": paired,
            "network": classifier(),
            "loss_function": ConstrainedRetrainLoss(2.0, 0.5),
            **options,
        }
    # Nine normal pixels to one of tumour: shares that each process normalises by itself would be far from those of the step.
    paired = PairedLoader({"masked": loader(pixel_labels="mask"), "labelled": loader(7, records[:7])})
    options = {"inferer": JointInferer(), "prepare_batch": masked_and_labelled}
    return {"train_data_loader": paired, "network": SegCls(), "loss_function": JointSegClsLoss([0.1, 1], [1, 0.3]), **options}


KINDS = ("images", "picked instances", "tiles of slides", "instances and images", "masked and labelled")


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_is_that_of_one_process(tmp_path, make_stage, records, kind):
    def train(folder, _=0):
        options = options_of(kind, records)
        make_stage(folder, max_epochs=3, optimizer=SGD, **options).run()

    train(tmp_path / "1")
    alone = torch.load(tmp_path / "1/model.pt", weights_only=True)
    for world in (2, 5):
        in_processes(partial(train, tmp_path / str(world)), world)
        shared = torch.load(tmp_path / f"{world}/model.pt", weights_only=True)
        for name, values in alone.items():
            torch.testing.assert_close(shared[name], values, rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
        of_one, of_all = ((tmp_path / name / "history.csv").read_text().split()[1:] for name in ("1", str(world)))
        losses = [[float(row.split(",")[1]) for row in rows] for rows in (of_one, of_all)]
        assert losses[1] == pytest.approx(losses[0], abs=1e-6)


class Given(nn.Module):
    """An encoder whose features are given."""

    channels, stride_px, key, name = 4, 1, "00" * 8, "given"


def test_features_are_standardised_by_the_images_of_all_processes(tmp_path, records):
    """The images of either process differ from each other, and much more from those of the other one."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(2, 4, 4, 4, generator=generator) + 100 * number for number in range(2)]
    whole = EncodedNetwork(Given())
    whole.standardise(images)

    def work(number):
        from shared.engines.distributed import add_up

        network = EncodedNetwork(Given())
        network.standardise(images[number : number + 1], add_up)
        torch.testing.assert_close(network.mean, whole.mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(network.std, whole.std, rtol=1e-6, atol=1e-6)

    in_processes(work)
