"""Attention over the instances of a bag, with or without a gate."""

import torch
from torch import Tensor, nn

__all__ = ["GatedAttention", "attention_pooling"]


class GatedAttention(nn.Module):
    """Attention of each instance of a bag, before the softmax over the bag.

    ``w . (tanh(V h) * sigmoid(U h))``, the gated form of the paper; without the gate ``w . tanh(V h)``. V and U have biases, as
    in the released code. There w has one too, which is the same for all instances of a bag: the softmax does not see it.

    Args:
        in_channels: of an instance.
        attention_channels: rows of V and U, the paper's L.
        is_gated: whether there is a gate.
        dropout: share of ``tanh(V h) * sigmoid(U h)`` that is left out in training.

    Reference:
        Ilse et al., Attention-based deep multiple instance learning, ICML 2018, equations 8 and 9; L is 128 there.
    """

    def __init__(self, in_channels: int, attention_channels: int = 128, is_gated: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.values = nn.Linear(in_channels, attention_channels)
        self.gate = nn.Linear(in_channels, attention_channels) if is_gated else None
        self.dropout = nn.Dropout(dropout)
        self.weights = nn.Linear(attention_channels, 1, bias=False)

    def forward(self, instances: Tensor) -> Tensor:
        """Instances ``(..., in_channels)`` to attention logits ``(...)``, float32."""
        hidden = torch.tanh(self.values(instances))
        if self.gate is not None:
            hidden = hidden * torch.sigmoid(self.gate(instances))
        return self.weights(self.dropout(hidden))[..., 0].float()


def attention_pooling(values: Tensor, attention_logits: Tensor) -> Tensor:
    """The mean of a bag's values, each weighted by its attention: the softmax over the bag.

    Args:
        values: of the instances, ``(B, n)`` or ``(B, n, C)``.
        attention_logits: ``(B, n)``.

    Returns:
        ``(B,)`` or ``(B, C)``.

    Raises:
        ValueError: if the shapes do not fit each other.

    Reference:
        Ilse et al., ICML 2018, equation 7.

    >>> attention_pooling(torch.tensor([[1.0, 5.0]]), torch.tensor([[0.0, 0.0]]))
    tensor([3.])
    """
    if attention_logits.ndim != 2 or values.shape[:2] != attention_logits.shape:
        raise ValueError(
            "need values (bags, instances) or (bags, instances, channels) and attention (bags, instances); got "
            f"{tuple(values.shape)}, {tuple(attention_logits.shape)}"
        )
    attention = attention_logits.softmax(dim=1)
    return torch.einsum("bn,bn...->b...", attention, values)
