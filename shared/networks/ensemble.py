"""Several networks of one kind that answer together."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .weights import load_weights

__all__ = ["ProbabilityEnsemble", "load_ensemble"]


class ProbabilityEnsemble(nn.Module):
    """The logits of the mean probabilities of several networks.

    Args:
        networks: from the same images to logits of the same shape: one channel, whose sigmoid is a probability of tumour, or
            one channel a class, whose softmax are the probabilities.

    Raises:
        ValueError: if there is no network.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks:
            raise ValueError("an ensemble needs at least one network; got none")
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to logits of the networks' shape, ``(B, C)`` or ``(B, C, H, W)``, float32."""
        logits = torch.stack([network(images).float() for network in self.networks])
        if logits.shape[2] > 1:
            # Up to a constant, the same for all classes, which a softmax does not see.
            return logits.log_softmax(dim=2).logsumexp(dim=0)
        # The logarithms of both classes' mean probabilities: exact where a sigmoid is 0 or 1.
        log_tumour = nn.functional.logsigmoid(logits).logsumexp(dim=0)
        log_normal = nn.functional.logsigmoid(-logits).logsumexp(dim=0)
        return log_tumour - log_normal


def load_ensemble(network: nn.Module, paths: str | Path | Sequence[str | Path]) -> nn.Module:
    """The trained networks of one or several runs, as one network.

    Args:
        network: of the kind that all were trained with.
        paths: of their state dicts; a single one need not be in a list.

    Returns:
        in eval mode: `network` itself, with the weights of the first path, or a `ProbabilityEnsemble` of it and others.

    Raises:
        ValueError: if there is no path, or naming the file that is missing or of another network.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    networks = [load_weights(copy.deepcopy(network) if index else network, path) for index, path in enumerate(paths)]
    loaded = [one for one in networks if one is not None]
    return loaded[0] if len(loaded) == 1 else ProbabilityEnsemble(loaded).eval()
