"""Bags of features drawn from the files of embedded slides: the data of methods with one label per slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.bag_dataset import SlideBagDataset
from ..data.passed_slides import PassedSlides
from ..data.record import Record, record_error
from ..data.tissue_cache import TISSUE_VERSION, TissueCache
from ..wsi.slide import Slide
from ..wsi.slide_pool import open_slide
from ..wsi.tissue.tissue_map import TissueMap
from .conventions import OWN
from .coverage import COVERAGE_TOLERANCE, missing_cells
from .slide_features import SlideFeatures
from .slide_files import check_alike, features_file, has_mpp_of, open_features


@dataclass(frozen=True)
class _Held:
    """The source of a bag: a slide's features, the rows of those on tissue, and their share of tissue."""

    features: SlideFeatures
    rows: NDArray[np.int64]
    shares: NDArray[np.floating]
    vectors: NDArray[np.float16] | None


class FeatureBagDataset(SlideBagDataset):
    """A bag of random features from each slide, in place of tiles.

    Items are those of `SlideBagDataset`, with ``tiles`` float16 ``(features_per_slide, C, 1, 1)``; ``xy`` are the corners of
    the patches that the features stand for, and ``tumour_share`` is of these patches.

    Args:
        data: manifest records of whole slides.
        tissue: where to find the slides' tissue.
        folder: of the slides' files, ``<slide>.h5``, of this project, TRIDENT, CLAM or STAMP, see `features_files`.
        encoder: see `shared.encoders.Encoder`: files of another encoder are an error.
        mpp: micrometres per pixel of the images that the encoder must have been given; None for any. All files have the same.
        features_per_slide: in a bag; where a slide has fewer, some come twice. None for all, once each and in their order: bags
            then differ in size, and a step takes one slide.
        min_tissue: least share of tissue in a patch, in (0, 1].
        with_shares: see `SlideBagDataset`.
        seed: of the draws.
        memory_gib: features that have been read are held up to this size.

    Raises:
        ValueError: naming the row and the file of a slide whose features are missing, are of another slide or encoder, at
            another pixel size, or lie on no tissue; and of one whose tissue is not that of when it was embedded. Other programs
            found the tissue in their own way, so their files may lack tissue cells; of their patches too, only those with at
            least `min_tissue` of the tissue found here are used.
    """

    def __init__(
        self,
        data: Sequence[Record],
        tissue: TissueCache,
        folder: str | Path,
        encoder: nn.Module,
        features_per_slide: int | None = 150,
        min_tissue: float = 0.5,
        with_shares: bool = False,
        seed: int = 0,
        memory_gib: float = 4.0,
        mpp: float | None = None,
    ) -> None:
        super().__init__(data, tissue, features_per_slide or 1, min_tissue=min_tissue, with_shares=with_shares, seed=seed)
        self.folder, self.encoder, self.features_per_slide = Path(folder), encoder, features_per_slide
        self._bytes_left = int(memory_gib * 2**30)
        self._encoder_mpp = mpp
        self._first: SlideFeatures | None = None
        self._held: dict[str, _Held] = {}
        self._shares: dict[tuple[str, int], Tensor] = {}

    def bag(self, record: Record, slide: Slide, rng: np.random.Generator) -> tuple[Tensor, NDArray[np.int64]]:
        """Features of one bag, and the corners of their patches."""
        held = self._features_of(record, slide)
        chosen = np.arange(len(held.rows))
        if self.features_per_slide is not None:
            chosen = rng.choice(len(held.rows), self.features_per_slide, replace=len(held.rows) < self.features_per_slide)
        rows = held.rows[chosen]
        vectors = held.features.read(rows) if held.vectors is None else held.vectors[chosen]
        return torch.from_numpy(vectors)[:, :, None, None], held.features.coords[rows]

    def all_of(self, index: int) -> tuple[Tensor, Tensor]:
        """Every feature on tissue of one slide, float16 ``(n, C, 1, 1)``, and the patches' shares of tissue ``(n,)``."""
        record = self.data[index]
        try:
            held = self._features_of(record, self._open(record))
            vectors = held.features.read(held.rows) if held.vectors is None else held.vectors
        except (ValueError, OSError) as error:
            raise record_error(record, error) from error
        return torch.from_numpy(vectors)[:, :, None, None], torch.from_numpy(np.asarray(held.shares, np.float32))

    def places(self, record: Record, slide: Slide, rng: np.random.Generator) -> NDArray[np.int64]:
        """Corners of the patches of one bag, see `SlideBagDataset.places`."""
        return self.bag(record, slide, rng)[1]

    def passed_slides(self) -> PassedSlides:
        """See `SlideBagDataset.passed_slides`; also until a slide's features change."""
        encoder_key = str(self.encoder.key)
        settings = [str(self.folder.absolute()), encoder_key, self._encoder_mpp, self.min_tissue, self.with_shares]
        folder = self.tissue.folder if self.tissue.keep else None
        known = [*settings, self.tissue.mpp, self.tissue.method, TISSUE_VERSION]
        return PassedSlides(folder, known, lambda record: features_file(self.folder, record["image"]))

    def _open(self, record: Record) -> Slide:
        # Whether the slide is fine enough was checked when it was embedded.
        return open_slide(record["image"], mpp=record.get("mpp"))

    def _extent_px(self, record: Record, slide: Slide) -> float:
        return self._features_of(record, slide).features.patch_px

    def _tumour_shares(self, record: Record, slide: Slide, xys: NDArray[np.int64]) -> Tensor:
        if self.features_per_slide is not None:
            return super()._tumour_shares(record, slide, xys)
        # The same places come in every epoch, and there are many of them.
        key = record["image"], len(xys)
        if key not in self._shares:
            self._shares[key] = super()._tumour_shares(record, slide, xys)
        return self._shares[key]

    def _features_of(self, record: Record, slide: Slide) -> _Held:
        key = record["image"]
        if key not in self._held:
            features = open_features(self.folder, key, slide.mpp)
            features.check(slide, self.encoder)  # type: ignore[arg-type]
            self._check_scale(features)
            tissue = self.tissue.get(record["image"], record.get("mpp"))
            self._check_coverage(features, tissue)
            shares = tissue.shares(features.coords, features.patch_px) if len(features) else np.zeros(0)
            rows = np.flatnonzero(shares >= self.min_tissue)
            if not len(rows):
                raise ValueError(
                    f"none of the {len(features)} features in {features.path} lies on tissue (share of at least "
                    f"{self.min_tissue:g}): lower min_tissue, or leave the slide out"
                )
            size = len(rows) * features.dim * 2
            vectors = features.read(rows) if size <= self._bytes_left else None
            self._bytes_left -= size if vectors is not None else 0
            self._held[key] = _Held(features, rows, shares[rows], vectors)
        return self._held[key]

    def _check_scale(self, features: SlideFeatures) -> None:
        if self._encoder_mpp is not None and not has_mpp_of(features, self._encoder_mpp):
            raise ValueError(
                f"{features.path} contains features of images at another pixel size: expected mpp {self._encoder_mpp:g}, found "
                f"{features.mpp:g}. Set mpp to that of the features, or embed the slides again at this one"
            )
        if len(features):
            self._first = self._first or features
            check_alike(self._first, features)

    def _check_coverage(self, features: SlideFeatures, tissue: TissueMap) -> None:
        if features.convention != OWN:
            return
        missing, wanted = missing_cells(features, tissue, self.min_tissue)
        if missing > COVERAGE_TOLERANCE * wanted:
            raise ValueError(
                f"{features.path} lacks {missing} of the {wanted} tissue cells (share of at least {self.min_tissue:g}): the "
                "tissue mask was edited, or made in another way, after the slide was embedded. Embed the slides again with this "
                "tissue"
            )
