"""One image of tissue with its true tumour mask."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .stain import Stain, sample_stain, stain_to_rgb
from .tissue import grow_tissue

MPP = 0.5


class SyntheticImage(NamedTuple):
    """An image ``(H, W, 3)`` uint8 at 0.5 um/px and its tumour mask ``(H, W)`` bool."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def synthesize_image(
    seed: int | np.random.SeedSequence,
    tumour_share: float,
    size_px: int | tuple[int, int] = 320,
    stain: Stain | None = None,
) -> SyntheticImage:
    """Generate an H&E-like image: the same arguments give the same bytes.

    Args:
        seed: seed, or a separate seed sequence for each image.
        tumour_share: exact share of tumour pixels (to one pixel), 0 for an image without tumour.
        size_px: side, or (height, width).
        stain: the slide's stain; drawn from `seed` if None.

    Returns:
        image and mask.

    Raises:
        ValueError: if `tumour_share` is not in [0, 1].

    >>> image, mask = synthesize_image(seed=0, tumour_share=0.25, size_px=(64, 96))
    >>> image.shape, float(mask.mean())
    ((64, 96, 3), 0.25)
    """
    rng = np.random.default_rng(seed)
    drawn = sample_stain(rng)
    shape = (size_px, size_px) if isinstance(size_px, int) else size_px
    tissue = grow_tissue(rng, shape, tumour_share)
    return SyntheticImage(stain_to_rgb(tissue.haematoxylin, tissue.eosin, stain or drawn), tissue.tumour)
