"""One slide into an output folder, as a cohort of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from ..inputs import find_images
from ..outputs.slide_results import REPLACED_SUFFIXES
from ..row import Row
from .cohort import InferenceFailures, known_rows, run_images
from .finished import file_problem
from .worker import CohortWorker, Mapper


def map_one(mapper: Mapper, slide: str | Path, output_dir: str | Path, mpp: float | None = None) -> Row:
    """Map a slide as `run_cohort` does: its files, its row and the folder's settings belong together. Rows of other slides are
    not read, of which there may be thousands.

    Args:
        mapper: makes the map.
        slide: a slide or an image.
        output_dir: of the results; it may hold those of other slides.
        mpp: micrometres per pixel of level 0, for a file that does not say.

    Returns:
        its row, also where it was finished before.

    Raises:
        ValueError: if this is not one slide, it cannot be read or mapped, or a file would be replaced that no run has written.
        StorageError: if nothing can be written to `output_dir`.
        InferenceFailures: if mapping it fails otherwise.
        DeviceFailure: if the device computes no more.
    """
    found = find_images(slide, None, output_dir, REPLACED_SUFFIXES)
    if len(found) != 1 or found[0].path != Path(slide).expanduser():
        raise ValueError(f"{slide}: expected one slide or image, found {len(found)}. For several use network.mapper.run")
    image = replace(found[0], mpp=mpp)
    with logging_redirect_tqdm():
        worker = CohortWorker(mapper, output_dir, tabulates=True)
        try:
            rows = run_images(worker, [image])
        except InferenceFailures as failures:
            problem = file_problem(failures.rows[0])
            if problem is not None:
                raise ValueError(problem) from failures
            raise
    if rows:
        return rows[0]
    row = known_rows(worker.store, [image])[image.name]
    # Whoever made it may have been killed before the table had it.
    worker.store.tabulate(row)
    worker.store.flush()
    return row
