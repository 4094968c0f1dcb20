"""A network whose logits are divided by a temperature: calibrated probabilities, the same decisions."""

import math

import torch
from torch import Tensor, nn

__all__ = ["ScaledLogits"]


class ScaledLogits(nn.Module):
    """Divides logits by a temperature, which is a buffer: an exported model carries it, and a hash of the weights sees it.

    Its state dict's keys begin with "network.": load a checkpoint before wrapping.

    Args:
        network: from images to logits; not copied.
        temperature: above 1 makes probabilities less sure, below 1 surer.

    Raises:
        ValueError: if the temperature is not positive and finite.

    Reference:
        Guo et al., ICML 2017, section 4.2.
    """

    temperature: Tensor

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite; got {temperature}")
        self.network = network
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, images: Tensor) -> Tensor:
        """The network's input to its logits over the temperature, float32."""
        return self.network(images).float() / self.temperature
