"""A slide, its truth and its map in one small frame, for figures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...data.record import Record
from ...wsi.slide import Slide
from .map_folder import MapFolder
from .scoring_grid import ScoringGrid


@dataclass(frozen=True)
class SlidePicture:
    """A slide as a figure shows it.

    Attributes:
        image: uint8 RGB ``(H, W, 3)``, the whole slide.
        probability: of tumour by the slide's map, ``(H, W)`` in [0, 1].
        truth: 1 where there is tumour, ``(H, W)``; None where the record has no mask and its label is not looked at.
    """

    image: NDArray[np.uint8]
    probability: NDArray[np.float64]
    truth: NDArray[np.uint8] | None


def slide_picture(record: Record, maps: MapFolder, longest_px: int, with_truth: bool = True) -> SlidePicture:
    """A slide with its finished map.

    Args:
        record: of a whole slide.
        maps: the folder of its map.
        longest_px: the longer side of the picture, about.
        with_truth: False leaves the truth out.

    Raises:
        ValueError: for a slide, a map or a mask that cannot be read.
    """
    with Slide(record["image"], mpp=record.get("mpp")) as slide, maps.open(record) as source:
        image = slide.thumbnail(longest_px)
        shape = image.shape[:2]
        mpp = slide.mpp * max(slide.size_px) / max(shape)
        grid = replace(ScoringGrid.of_mpp(record, maps.row(record), mpp), shape=shape)
        probability = grid.decisions(source, 0, shape[0])[0] / 255
    return SlidePicture(image, probability, grid.truth(0, shape[0]) if with_truth else None)
