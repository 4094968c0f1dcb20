"""The encoder of features that another program has stored: known by name and size, and never run."""

from __future__ import annotations

import hashlib
import json
from typing import Protocol

from torch import Tensor

from .encoder import Encoder, EncoderFacts, FeatureOptions
from .presets import preset_of

__all__ = ["ForeignEncoder", "foreign_encoder"]

_TOKENS = "embedding"
_USUAL_PATCH_PX = 224


class Patches(Protocol):
    """What the files say, see `shared.features.foreign_patches`."""

    @property
    def dim(self) -> int: ...

    @property
    def size_px(self) -> int | None: ...


class ForeignEncoder(Encoder):
    """An encoder without weights, for a head that learns on another program's features and maps slides from them alone.

    Its key stands for the encoder's name and for the size of vectors and patches, since the files say nothing of the weights.

    Args:
        facts: of the encoder.
        channels: length of its vectors.
        stride_px: a map has a place every so many pixels of the images that the encoder got.
        patch_px: side of these images; None where the files do not say.
    """

    def __init__(self, facts: EncoderFacts, channels: int, stride_px: int, patch_px: int | None = None) -> None:
        super().__init__(facts, {stride_px: channels}, FeatureOptions(tokens=_TOKENS), (_TOKENS,))
        self.patch_px = patch_px

    @property
    def key(self) -> str:
        parts = ["features of another program", self.name, self.channels, self.patch_px]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def native_features(self, images: Tensor) -> list[Tensor]:
        raise ValueError(
            f"the features of {self.name} were made by another program, and its weights are not loaded: only slides whose "
            "features are stored can be mapped. Store the features of this slide with that program, or leave the slide out"
        )


def foreign_encoder(source: str | None, stride_px: int | None, patches: Patches) -> ForeignEncoder:
    """The encoder of another program's features.

    Args:
        source: its name, as given to `load_encoder`; its aliases are those of `shared.encoders.presets.PRESETS`.
        stride_px: see `ForeignEncoder`; None for the side of the patches, or 224 where the files do not say it.
        patches: what the files say.

    Raises:
        ValueError: without a name.
    """
    if not source:
        raise ValueError("encoder: expected the name of the encoder that made the features, found none. Give --encoder NAME")
    preset = preset_of(source)
    facts = EncoderFacts(source) if preset is None else preset.facts()
    return (
        ForeignEncoder(facts, patches.dim, stride_px or patches.size_px or _USUAL_PATCH_PX, patches.size_px)
        .eval()
        .requires_grad_(False)
    )
