"""Networks of joint segmentation and classification as after a training, and images for them."""

import torch
from torch import nn

from shared.networks import SegClsResNet18

HEADS = ("paper", "released")


def random_images(batch_size=2, height=32, width=32, seed=0):
    shape = (batch_size, 3, height, width)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def make(head="paper", **arguments):
    torch.manual_seed(0)
    network = SegClsResNet18(head=head, **arguments)
    # Running statistics as after a training: with the initial ones batch normalisation would be the identity.
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.bias, 0, 0.1)
    return network.eval()
