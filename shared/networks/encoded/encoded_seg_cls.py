"""Joint segmentation and classification on features: maps of classes, and the images' labels read off them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers.joint_maps import JointMaps
from .encoded_network import EncodedNetwork
from .heads import pixelwise_head

__all__ = ["EncodedSegCls"]


class EncodedSegCls(EncodedNetwork, JointMaps):
    """Class logits for every feature of an encoder, and a classifier of that map, as of `SegClsResNet18`.

    Args:
        encoder: see `EncodedNetwork`.
        num_classes: C.
        head: see `SegClsResNet18`.
        train_classifier: the same.
        hidden_channels: of the decoder, see `pixelwise_head`.
        kernel_size: the same.
        finetune: see `EncodedNetwork`.

    Raises:
        ValueError: if there is no such head, or there are fewer than 2 classes.
    """

    def __init__(
        self,
        encoder: nn.Module,
        num_classes: int = 4,
        head: str = "paper",
        train_classifier: bool = True,
        hidden_channels: int | None = None,
        kernel_size: int = 1,
        finetune: bool = False,
    ) -> None:
        super().__init__(encoder, finetune)
        self.kernel_size = kernel_size
        self.decoder = pixelwise_head(self.channels, num_classes, hidden_channels, kernel_size)
        self.add_classifier(num_classes, head, train_classifier)

    def maps(self, inputs: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, 0 to 255, or features ``(B, D, h, w)``, to class logits ``(B, C, h, w)``, float32."""
        if torch.jit.is_scripting():
            return self.decoder(self.features(inputs)).float()
        return self.answers(self.decoder, inputs).float()
