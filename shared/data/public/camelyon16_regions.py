"""CAMELYON16 as CAMEL learns from it: its split of the slides, and their labelled regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from ..patches.tissue_regions import slide_regions
from ..record import Record
from ..splits import take_share
from ..tissue_cache import TissueCache
from .camelyon16 import PARTLY_ANNOTATED

SPLIT_READINGS = ("paper", "official")
PAPER_TRAINING_SLIDES = 240


def assign_camelyon16_splits(
    slides: Sequence[Record],
    reading: str = "paper",
    val_share: float = 0.1,
    seed: int = 0,
    num_training: int = PAPER_TRAINING_SLIDES,
) -> None:
    """Fill ``split`` of every slide in place.

    The paper trains on 240 slides, 110 of them with tumour, and tests on 160, 49 of them with tumour, and does not say which.
    All 110 slides with tumour of the official training set were in the one, all 49 of the test set in the other, so that 30
    normal training slides were tested on. Reading: 30 drawn at random. In today's release 111 training slides have tumour (one
    had been taken for normal), test_049 is gone and test_114 is not used: 240 and 158.

    Args:
        slides: with their official split, train or test; see `camelyon16_slides`.
        reading: ``"paper"``, or ``"official"`` for the challenge's own split.
        val_share: of the training slides of each label, drawn at random for validation; 0 for none, as in the paper.
        seed: of both draws; the same slides and seed give the same split.
        num_training: slides, normal ones being tested on until so many are left (paper only).

    Raises:
        ValueError: for another reading, or a share out of range.
    """
    if reading not in SPLIT_READINGS or not 0 <= val_share < 1:
        wanted = f"reading must be one of {', '.join(SPLIT_READINGS)} and val_share in [0, 1)"
        raise ValueError(f"{wanted}; got {reading!r} and {val_share}")
    training = [slide for slide in slides if slide["split"] == "train"]
    if reading == "paper":
        normal = [slide for slide in training if slide["label"] == 0]
        num_moved = min(max(0, len(training) - num_training), len(normal))
        for slide in take_share(normal, num_moved / len(normal), seed) if num_moved else ():
            slide["split"] = "test"
    training = [slide for slide in training if slide["split"] == "train"]
    for slide in take_share(training, val_share, seed) if val_share else ():
        slide["split"] = "val"


def camelyon16_regions(
    slides: Sequence[Record],
    size_px: int,
    mpp: float,
    min_tissue: float = 0.5,
    tissue: TissueCache | None = None,
    keep_unsure: bool = False,
) -> list[Record]:
    """The labelled regions of the slides, see `slide_regions`.

    Args:
        slides: with ``split``.
        size_px: side of a region at `mpp`.
        mpp: micrometres per pixel at which the regions will be read.
        min_tissue: regions with a smaller share of tissue are left out.
        tissue: where the slides' tissue is kept.
        keep_unsure: also take the regions without annotated tumour of slides that are not exhaustively annotated. By default
            only those with tumour are taken, since the others may hold some (deviation: the paper does not speak of these
            slides).

    Raises:
        ValueError: naming the slide, where it or its annotations cannot be read.
    """
    regions: list[Record] = []
    for slide in tqdm(slides, desc="regions", unit="slide", disable=None):
        is_unsure = slide["case_id"] in PARTLY_ANNOTATED and not keep_unsure
        found = slide_regions(slide, size_px, mpp, min_tissue, tissue=tissue)
        regions += [region for region in found if region["label"] or not is_unsure]
    return regions


def balanced_regions(regions: Sequence[Record], seed: int = 0) -> list[Record]:
    """All training regions; of validation and test all those with tumour and as many without, drawn at random (section 4.1).

    Training over-samples tumour itself, each epoch again, see `EvenBatchSampler`.

    Args:
        regions: with ``split`` and ``label``.
        seed: of the draw.

    Returns:
        The records themselves, in their order. A split without tumour, or with fewer normal regions, stays as it is.
    """
    rng = np.random.default_rng(seed)
    left_out: set[int] = set()
    for split in ("val", "test"):
        normal, tumour = (
            [index for index, region in enumerate(regions) if (region["split"], region["label"]) == (split, label)]
            for label in (0, 1)
        )
        if tumour:
            left_out |= set(rng.permutation(normal)[len(tumour) :].tolist())
    return [region for index, region in enumerate(regions) if index not in left_out]
