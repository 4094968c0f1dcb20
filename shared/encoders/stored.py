"""An encoder whose features are stored: its weights are loaded only when it is first given an image."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .encoder import Encoder, EncoderFacts, FeatureOptions
from .factory import load_encoder

__all__ = ["StoredEncoder", "encoder_of_features"]


class StoredEncoder(Encoder):
    """An encoder as a file of its features describes it, see `Encoder.description`.

    Args:
        description: of the file.
        load: gives the encoder itself.
    """

    def __init__(self, description: Mapping[str, Any], load: Callable[[], Encoder]) -> None:
        facts = EncoderFacts(
            description["name"],
            description["mean"],
            description["std"],
            description["mpp"],
            description["input_size_px"],
            description["licence"],
            description["is_gated"],
        )
        strides = description["native_strides_px"]
        channels = dict(zip(strides, description["map_channels"], strict=True))
        options = FeatureOptions(description["stride_px"], description["smoothing"], strides, description["tokens"])
        super().__init__(facts, channels, options, (description["tokens"],))
        self._described, self._load = dict(description), load
        # Not a module of this one, whose state stays as it is.
        self._loaded: list[Encoder] = []

    @property
    def key(self) -> str:
        return str(self._described["key"])

    @property
    def aliases(self) -> list[str]:
        return self._itself().aliases

    def description(self) -> dict[str, Any]:
        return dict(self._described)

    def native_features(self, images: Tensor) -> list[Tensor]:
        return self._itself().to(images.device).native_features(images)

    def _itself(self) -> Encoder:
        if not self._loaded:
            encoder = self._load()
            if encoder.key != self.key:
                raise ValueError(
                    f"the stored features are those of an encoder {self.name} with the key {self.key}; found one with the key "
                    f"{encoder.key}: its weights or options differ. Embed the slides with this encoder"
                )
            self._loaded.append(encoder)
        return self._loaded[0]


def encoder_of_features(
    features: str | Path,
    source: str,
    stride_px: int | None = None,
    smoothing: int = 1,
    tokens: str = "dense",
    checkpoint_path: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    mpp: float | None = None,
    input_size_px: int | None = None,
    licence: str | None = None,
) -> Encoder:
    """The encoder of a folder of features, loaded when it is first given an image; where nothing is stored it is loaded now.

    Args:
        features: folder of files as `SlideEmbedder` writes them.
        source: of the encoder, and the other arguments, see `load_encoder`: what the first of the files says has to agree.

    Raises:
        ValueError: if it does not.
    """

    def load() -> Encoder:
        return load_encoder(source, stride_px, smoothing, None, tokens, checkpoint_path, mean, std, mpp, input_size_px, licence)

    path = min(Path(features).glob("*.h5"), default=None)
    description = None if path is None else _description(path)
    if description is None:
        return load()
    wanted = {"smoothing": smoothing, "tokens": tokens, "stride_px": stride_px or description["native_stride_px"]}
    different = [f"{name} {value!r}, found {description[name]!r}" for name, value in wanted.items() if description[name] != value]
    if different:
        raise ValueError(
            f"{path} holds features with other options: expected {', '.join(different)}. Embed the slides with these options"
        )
    if description["name"] != source:
        # By another of its names, or another encoder: its key shows which.
        return load()
    return StoredEncoder(description, load).eval().requires_grad_(False)


def _description(path: Path) -> dict[str, Any] | None:
    """The encoder's description in a file of this project; None for other programs' files and for unreadable ones."""
    # Here, for encoders alone do without it.
    import h5py

    try:
        with h5py.File(path) as file:
            return dict(json.loads(file.attrs["encoder"]))
    except (OSError, KeyError, ValueError):
        return None
