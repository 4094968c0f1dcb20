"""CDWS-MIL on features: a side output at each of several strides of an encoder, and their fusion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.packed_strides import unpack_strides
from ..layers.side_outputs import SideOutputs, checked_side_outputs
from .encoded_network import EncodedNetwork
from .heads import pixelwise_head

__all__ = ["EncodedSideOutputs"]


class EncodedSideOutputs(EncodedNetwork, SideOutputs):
    """Tumour probability of every pixel from several strides of an encoder, as `SideOutputVGG` gives it from several depths.

    Each stride of the encoder that has a side output has its own head. In training on features the side outputs stay at the
    finest of these strides, whose places stand for equally many pixels each, so that means over them are means over pixels.

    Args:
        encoder: see `EncodedNetwork`; its features may be packed from several strides.
        side_outputs: stages with a side output, counted from 1, ascending to the last one, each a stride; None for every one.
        fusion_weights: see `SideOutputVGG`.
        hidden_channels: see `pixelwise_head`.
        finetune: see `EncodedNetwork`.
        kernel_size: see `pixelwise_head`.
        num_stages: stages that `side_outputs` counts. An encoder with fewer strides, such as a vision transformer with its one,
            has the last of these stages: the side outputs of the others are left out. None for as many as there are strides.

    Attributes:
        num_left_out: side outputs that were asked for and have no stride.

    Raises:
        ValueError: if there are no such strides, or the fusion weights do not fit.
    """

    def __init__(
        self,
        encoder: nn.Module,
        side_outputs: Sequence[int] | None = None,
        fusion_weights: Sequence[float] | None = None,
        hidden_channels: int | None = None,
        finetune: bool = False,
        kernel_size: int = 1,
        num_stages: int | None = None,
    ) -> None:
        super().__init__(encoder, finetune)
        self.map_channels = [int(channels) for channels in encoder.map_channels]  # type: ignore[union-attr]
        self.strides_px = [int(stride) for stride in encoder.strides_px]  # type: ignore[union-attr]
        # As whole factors: a stride of an enlarged image may be no whole number of pixels.
        self.native_strides_px = [int(stride) for stride in encoder.native_strides_px]  # type: ignore[union-attr]
        stages = len(self.map_channels) if num_stages is None else num_stages
        missing = stages - len(self.map_channels)
        asked = checked_side_outputs(stages, side_outputs)
        sides = [side - missing for side in asked if side > missing]
        self.num_left_out = len(asked) - len(sides)
        self.kernel_size = kernel_size
        self.side_layers = nn.ModuleList(
            pixelwise_head(self.map_channels[side - 1], 1, hidden_channels, kernel_size) for side in sides
        )
        self.add_fusion(sides, fusion_weights)

    def side_logits(self, inputs: Tensor) -> Tensor:
        """Images or features to the side outputs' logits, float32.

        Args:
            inputs: RGB images ``(B, 3, H, W)``, 0 to 255, or features ``(B, C, h, w)``.

        Returns:
            ``(B, T, H, W)``; from features in train mode at the finest stride s that has a side output, ``(B, T, H / s, W /
            s)``.
        """
        size = self.image_size(inputs)
        if self.training and inputs.shape[1] != 3:
            # The places of the finest stride in one of the coarsest.
            factor = self.native_strides_px[-1] // self.native_strides_px[self.side_outputs[0] - 1]
            size = [inputs.shape[2] * factor, inputs.shape[3] * factor]
        if torch.jit.is_scripting():
            return self._sides(self.features(inputs), size)
        return self._sides_in_parts(inputs, size)

    @torch.jit.unused
    def _sides_in_parts(self, inputs: Tensor, size: list[int]) -> Tensor:
        return self.answers(lambda features: self._sides(features, size), inputs)

    def _sides(self, features: Tensor, size: list[int]) -> Tensor:
        """Standardised features ``(B, C, h, w)`` to logits ``(B, T, *size)``."""
        maps = unpack_strides(features, self.map_channels, self.native_strides_px)
        logits: list[Tensor] = []
        for index, layer in enumerate(self.side_layers):
            coarse = layer(maps[self.side_outputs[index] - 1]).float()
            logits.append(F.interpolate(coarse, size=size, mode="bilinear", align_corners=False))
        return torch.cat(logits, dim=1)

    def to_pixels(self, maps: Tensor, inputs: Tensor) -> Tensor:
        """Maps ``(B, K, h', w')`` of any stride at the pixels of the images that they are of, bilinear."""
        return F.interpolate(maps, size=self.image_size(inputs), mode="bilinear", align_corners=False)
