"""Networks of several kinds as the evaluations take them: maps of tumour probability, or logits of every pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..data.labels.lattice import paint_instances
from ..engines.distributed import unwrap
from ..engines.inferers import LatticeInferer
from ..networks.encoded.encoded_network import EncodedNetwork
from ..networks.probabilities import tumour_probability


class ProbabilityMaps(nn.Module):
    """The one map of a segmentation network, for `shared.evaluation.RegionEvaluation`.

    Args:
        network: images to logits ``(B, 2, H, W)`` or ``(B, 1, H, W)``.
    """

    side_outputs: tuple[int, ...] = ()

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def maps(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to probabilities ``(B, 1, H, W)``."""
        return tumour_probability(self.network(images))[:, None]


class ScoredMaps(ProbabilityMaps):
    """`ProbabilityMaps` of a network with a word on the image as a whole, such as `shared.networks.Wildcat`.

    Args:
        network: also with ``image_scores(images)``, ``(B, C)``.
    """

    def image_probability(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to the probability that there is tumour ``(B,)``."""
        network: Any = self.network
        return tumour_probability(network.image_scores(images))[:, 0, 0]


class InstanceMap(nn.Module):
    """A classifier of instances as a segmentation network: its logits painted on the pixels of their instances.

    Args:
        classifier: instances to logits ``(B, 1)``.
        instances_per_side: N; images divide into N x N instances.
    """

    def __init__(self, classifier: nn.Module, instances_per_side: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.score = LatticeInferer(instances_per_side)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, M, M')``, or their features, to logits ``(B, 1, M, M')``, without gradients."""
        plain = unwrap(self.classifier)
        height, width = plain.image_size(images) if isinstance(plain, EncodedNetwork) else images.shape[-2:]
        return torch.stack([paint_instances(logits, height, width) for logits in self.score(images, self.classifier)])
