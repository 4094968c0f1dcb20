"""Side outputs and their fusion: what CDWS-MIL makes of logits at several depths of a network."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

__all__ = ["SideOutputs", "fuse_probabilities"]

# Of three side outputs, found by cross-validation: section III.B.3 of the paper.
PAPER_WEIGHTS = (0.2, 0.35, 0.45)


def fuse_probabilities(side_probabilities: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over the side outputs, ``sum_t weights[t] * side_probabilities[:, t]``.

    Args:
        side_probabilities: ``(B, T, H, W)``.
        weights: ``(T,)``, not negative, with sum 1.

    Returns:
        probabilities ``(B, 1, H, W)``.

    Reference:
        Jia et al., IEEE TMI 2017, equation (10).

    >>> fuse_probabilities(torch.tensor([0.5, 1.0]).view(1, 2, 1, 1), torch.tensor([0.25, 0.75])).item()
    0.875
    """
    # Rounded weights may give a little more than 1.
    return (side_probabilities * weights[:, None, None]).sum(dim=1, keepdim=True).clamp(max=1)


class SideOutputs(nn.Module, ABC):
    """A network with side outputs. Subclasses implement `side_logits`, and call `add_fusion` when they are made.

    Attributes:
        side_outputs: numbers of the depths with a side output, counted from 1, ascending.
        fusion_weights: fixed weight of each side output. Weights that were given stay when a checkpoint is loaded; without,
            those of the checkpoint are taken.
        fusion_logits: of the weights that are learned in training; None of a network with one side output.
    """

    fusion_weights: Tensor
    fusion_logits: Tensor | None

    def add_fusion(self, side_outputs: Sequence[int], fusion_weights: Sequence[float] | None = None) -> None:
        """Register the learned and the fixed weights of the fusion; None for the paper's weights of three, else equal ones."""
        self.side_outputs = list(side_outputs)
        self.keeps_fusion_weights = fusion_weights is not None
        num_sides = len(self.side_outputs)
        self.register_parameter("fusion_logits", nn.Parameter(torch.zeros(num_sides)) if num_sides > 1 else None)
        self.register_buffer("fusion_weights", checked_fusion_weights(num_sides, fusion_weights))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        name = f"{prefix}fusion_weights"
        if self.keeps_fusion_weights and name in state_dict and state_dict[name].shape == self.fusion_weights.shape:
            state_dict = {**state_dict, name: self.fusion_weights}
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @abstractmethod
    def side_logits(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to the side outputs' logits ``(B, T, H, W)``, float32."""

    def side_probabilities(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to the side outputs' probabilities ``(B, T, H, W)``."""
        return self.side_logits(images).sigmoid()

    def maps(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)`` to the side outputs' probabilities and, last, their fusion with the fixed weights.

        Returns:
            ``(B, T + 1, H, W)``, float32, in either mode.
        """
        sides = self.side_probabilities(images)
        return torch.cat([sides, fuse_probabilities(sides, self.fusion_weights.float())], dim=1)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to maps of the same size, float32.

        Returns:
            in train mode logits of the side outputs ``(B, T, H, W)`` and the probabilities ``(B, 1, H, W)`` of their fusion with
            the learned weights, None if there is one side output only; in eval mode, and from a scripted network, the
            probabilities ``(B, 1, H, W)`` of their fusion with the fixed weights.
        """
        if not torch.jit.is_scripting() and self.training:
            side_logits = self.side_logits(images)
            if self.fusion_logits is None:
                return side_logits, None
            return side_logits, fuse_probabilities(side_logits.sigmoid(), self.fusion_logits.float().softmax(dim=0))
        return fuse_probabilities(self.side_probabilities(images), self.fusion_weights.float())


class StageSideOutputs(SideOutputs):
    """Side outputs of the stages of a network, each of which goes on from the features of the one before.

    Attributes:
        normalization: of raw pixel values.
        stages: of the network, in their order.
        side_layers: of features to one logit, one for each side output.
        checkpointing: keep only each stage's output for the backward pass.
    """

    def add_stages(self, stages: Sequence[nn.Module], normalization: nn.Module, checkpointing: bool) -> None:
        """Register the stages and what brings raw pixels to them."""
        self.checkpointing = checkpointing
        self.normalization = normalization
        self.stages = nn.ModuleList(stages)

    def add_side_layers(self, side_layers: Sequence[nn.Module]) -> None:
        """Register the layers of the side outputs."""
        self.side_layers = nn.ModuleList(side_layers)

    def taps(self, images: Tensor) -> list[Tensor]:
        """RGB images ``(B, 3, H, W)``, 0 to 255, to each stage's features ``(B, C, h, w)``"""
        features = self.normalization(images)
        taps: list[Tensor] = []
        for stage in self.stages:
            if not torch.jit.is_scripting() and self.checkpointing and self.training:
                features = checkpoint(stage, features, use_reentrant=False, preserve_rng_state=False)
            else:
                features = stage(features)
            taps.append(features)
        return taps

    def side_logits(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to the side outputs' logits ``(B, T, H, W)``, float32."""
        taps = self.taps(images)
        logits: list[Tensor] = []
        for index, layer in enumerate(self.side_layers):
            coarse = layer(taps[self.side_outputs[index] - 1]).float()
            logits.append(F.interpolate(coarse, size=images.shape[-2:], mode="bilinear", align_corners=False))
        return torch.cat(logits, dim=1)


def checked_side_outputs(num_depths: int, side_outputs: Sequence[int] | None) -> list[int]:
    """Numbers of the depths with a side output, from 1: all of them for None.

    Raises:
        ValueError: unless they ascend, and end with the last.
    """
    depths = list(range(1, num_depths + 1)) if side_outputs is None else list(side_outputs)
    # What lies after the last side output would be computed for nothing and learn nothing.
    if not depths or depths != sorted(set(depths)) or depths[0] < 1 or depths[-1] != num_depths:
        raise ValueError(f"side_outputs must ascend from 1 or more to num_stages={num_depths}; got {side_outputs}")
    return depths


def checked_fusion_weights(num_sides: int, fusion_weights: Sequence[float] | None) -> Tensor:
    """Fixed weights of the fusion, ``(num_sides,)``.

    Raises:
        ValueError: unless there is one for each side output, none is negative and their sum is 1.
    """
    if fusion_weights is None:
        fusion_weights = PAPER_WEIGHTS if num_sides == len(PAPER_WEIGHTS) else [1 / num_sides] * num_sides
    is_mean = len(fusion_weights) == num_sides and min(fusion_weights) >= 0 and math.isclose(sum(fusion_weights), 1, abs_tol=1e-6)
    if not is_mean:
        raise ValueError(f"fusion_weights must be {num_sides} numbers >= 0 with sum 1; got {fusion_weights}")
    return torch.tensor(fusion_weights, dtype=torch.float32)
