"""Logits for what expects them, of a network that returns probabilities."""

import torch
from torch import Tensor, nn

__all__ = ["LogitsOfProbabilities"]


class LogitsOfProbabilities(nn.Module):
    """A network whose output is ``logit(p)`` of another one's probabilities, for inference.

    Probabilities are kept from 0 and 1 by float32's eps, 1.2e-7, so logits lie within about -16 and 16. It has no parameters
    of its own, but its state dict's keys begin with "network.": load a checkpoint before wrapping.

    Args:
        network: returns one tensor of probabilities; used with the same input. It is not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eps = torch.finfo(torch.float32).eps

    def forward(self, images: Tensor) -> Tensor:
        """The network's input to logits of its output's shape, float32.

        Raises:
            ValueError: if the network does not return one tensor: a `SideOutputVGG` in train mode does not.
        """
        probabilities = self.network(images)
        if not isinstance(probabilities, Tensor):
            raise ValueError("the network must return one tensor of probabilities: is it in train mode?")
        return torch.logit(probabilities.float(), eps=self.eps)
