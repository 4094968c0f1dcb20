"""One slide into an output folder, as a cohort of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..inputs import find_images
from ..outputs.slide_results import REPLACED_SUFFIXES
from ..row import Row
from .cohort import InferenceFailures, known_rows, run_cohort
from .row_store import RowStore
from .worker import Mapper

# Of a row's reason: whatever else fails is no fault of the slide.
_OF_THE_SLIDE = "ValueError: "


def map_one(mapper: Mapper, slide: str | Path, output_dir: str | Path, mpp: float | None = None) -> Row:
    """Map a slide by `run_cohort`: its files, its row and the folder's settings belong together.

    Args:
        mapper: makes the map.
        slide: a slide or an image.
        output_dir: of the results; it may hold those of other slides.
        mpp: micrometres per pixel of level 0, for a file that does not say.

    Returns:
        its row, also where it was finished before.

    Raises:
        ValueError: if this is not one slide, it cannot be read or mapped, or a file would be replaced that no run has written.
        InferenceFailures: if mapping it fails otherwise.
    """
    found = find_images(slide, None, output_dir, REPLACED_SUFFIXES)
    if len(found) != 1 or found[0].path != Path(slide).expanduser():
        raise ValueError(f"{slide}: expected one slide or image, found {len(found)}. For several use network.mapper.run")
    image = replace(found[0], mpp=mpp)
    try:
        rows = run_cohort(mapper, [image], output_dir)
    except InferenceFailures as failures:
        reason = str(failures.rows[0]["reason"])
        if reason.startswith(_OF_THE_SLIDE):
            raise ValueError(reason.removeprefix(_OF_THE_SLIDE)) from failures
        raise
    return rows[0] if rows else known_rows(RowStore(output_dir), [image])[image.name]
