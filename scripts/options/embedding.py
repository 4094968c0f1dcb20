"""From options to a `SlideEmbedder`: in this process, or in those of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.inference import SlideEmbedder


@dataclass(frozen=True)
class EmbeddingOptions:
    """The options of an embedder, see `shared.encoders.load_encoder` and `shared.inference.SlideEmbedder`.

    Args:
        encoder: its source.
        smoothing: None is 3, as in bundles, but 1 where a feature is of a whole image or tile.
    """

    encoder: str
    checkpoint_path: Path | None = None
    stride_px: int | None = None
    strides_px: tuple[int, ...] | None = None
    smoothing: int | None = None
    tokens: str = "dense"
    mean: list[float] | None = None
    std: list[float] | None = None
    encoder_mpp: float | None = None
    input_size_px: int | None = None
    licence: str | None = None
    mpp: float | None = None
    slide_mpp: float | None = None
    tile_mpp: float | None = None
    tile_size_px: int | None = None
    margin_px: int | None = None
    tissue_only: bool = True
    tissue_method: str | None = None
    tissue_dir: Path | None = None
    tissue_mpp: float = 8.0
    batch_size: int | None = None
    num_workers: int | None = None
    device: str | None = None
    compile: bool = False

    def build(self) -> SlideEmbedder:
        """The embedder, with its encoder loaded.

        Raises:
            ValueError: for options that do not fit.
            ImportError, RuntimeError: as `load_encoder` does.
        """
        from shared.data import TissueCache
        from shared.encoders import load_encoder
        from shared.inference import Compute, SlideEmbedder, Tissue

        encoder = load_encoder(
            self.encoder,
            self.stride_px,
            (3 if self.tokens.startswith("dense") else 1) if self.smoothing is None else self.smoothing,
            self.strides_px,
            self.tokens,
            checkpoint_path=self.checkpoint_path,
            mean=self.mean,
            std=self.std,
            mpp=self.encoder_mpp,
            input_size_px=self.input_size_px,
            licence=self.licence,
        )
        method = self.tissue_method or "otsu"
        cache = None if self.tissue_dir is None else TissueCache(self.tissue_dir, self.tissue_mpp, method)
        return SlideEmbedder(
            encoder,
            self.mpp,
            self.slide_mpp,
            self.tile_mpp,
            self.tile_size_px,
            self.margin_px,
            Tissue(self.tissue_only, method, cache, self.tissue_mpp),
            Compute(self.batch_size, self.device, compile=self.compile, num_workers=self.num_workers),
        )
