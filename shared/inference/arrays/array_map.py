"""Images in memory -> probabilities, by the tiles, the network and the precision of a slide mapper, and without files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from ..look_ahead import OpenedSlide
from ..outputs.probability_map import ProbabilityMap
from ..overview import read_overview
from ..slide_mapper import SlideMapper
from .array_slide import NAME, ArraySlide


def map_array(
    mapper: SlideMapper, rgb: NDArray[np.uint8], mpp: float | None = None, tissue_only: bool | None = None
) -> NDArray[np.float32]:
    """The map of an image: the values that the mapper writes for a PNG file with these pixels.

    Args:
        mapper: of the network.
        rgb: uint8 ``(H, W, 3)`` of any size.
        mpp: micrometres per pixel; None: that of the network, whose pixels they then are.
        tissue_only: tiles without tissue are skipped and score 0; None is as the mapper does it. Tissue is found on the image
            itself. False for crops that show no glass.

    Returns:
        probabilities in steps of 1/255, float32 ``(h, w)`` for a map of tumour and ``(C, h, w)`` for C classes, where h and w are
        H and W at the network's pixel size, rounded.

    Raises:
        ValueError: for an array that is no image, or no picture of stained tissue on bright glass.
    """
    slide = ArraySlide(rgb, mapper.mpp if mpp is None else mpp)
    try:
        return _mapped(mapper, slide, mapper.tissue.only if tissue_only is None else tissue_only)
    except ValueError as error:
        # No file of that name is anywhere.
        raise ValueError(str(error).replace(NAME, "the image given as an array")) from error


def _mapped(mapper: SlideMapper, slide: ArraySlide, tissue_only: bool) -> NDArray[np.float32]:
    with ExitStack() as stack:
        opened = stack.enter_context(_open(mapper, slide, tissue_only))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="array-")))
        whole = stack.enter_context(ProbabilityMap(folder / "map.part", opened.grid, mapper._num_classes))
        mapper._fill(whole, opened, "")
        classes = [whole.read_rows(0, whole.shape[0], index) for index in range(whole.num_classes)]
    values = classes[0] if mapper.class_names is None else np.stack(classes)
    return values.astype(np.float32) / np.float32(255)


def _open(mapper: SlideMapper, slide: ArraySlide, tissue_only: bool) -> OpenedSlide:
    scale = mapper._scale(slide)
    grid = mapper._grid(slide, scale)
    # Not the tissue masks that a training keeps: those are of slides, and this is an array.
    overview = read_overview(slide, grid, scale.downsample, mapper.outputs.overview_size_px, tissue_only, mapper.tissue.found_by)
    wanted = grid.tiles_on(overview.holds_tissue, overview.factor * scale.map_downsample)
    return OpenedSlide(slide, grid, wanted, [], mapper._read_batches(slide, grid, wanted, scale), scale, overview)
