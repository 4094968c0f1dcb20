"""Many images into one output folder: finished ones skipped, failures recorded, and several processes at work at once."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..inputs import ImageInput
from ..row import Row
from .finished import FINISHED, SKIPPED, UNFINISHED
from .row_store import RowStore
from .worker import CohortWorker, Mapper, Outcome

logger = logging.getLogger(__name__)

POLL_S = 0.5
LOG_AGAIN_S = 60.0


class InferenceFailures(RuntimeError):
    """Some images of a run could not be mapped or embedded; the others are finished.

    Attributes:
        rows: of these images; each says why.
    """

    def __init__(self, message: str, rows: Sequence[Row] = ()) -> None:
        super().__init__(message)
        self.rows = list(rows)


class Tally:
    """Rows and failures of a run as they arrive, its table and its progress bar over images.

    Args:
        store: of the output folder.
        images: of the run, finished ones too.
        num_pending: those that are not.
        tabulates: whether rows are put into the table here.
    """

    def __init__(self, store: RowStore, images: Sequence[ImageInput], num_pending: int, tabulates: bool = True) -> None:
        self._store, self._images, self._tabulates = store, images, tabulates
        self._rows: dict[str, Row] = {}
        self._is_new: set[str] = set()
        self._has_found = False
        # Slides differ in size: the mean over all so far says more than the latest.
        self._bar = tqdm(total=num_pending, desc="images", unit="image", smoothing=0, disable=None)
        self._num_pending, self._num_done = num_pending, 0
        self._started = self._logged_at = time.monotonic()

    def add(self, image: ImageInput, outcome: Outcome) -> None:
        """Count an attempt that found or made a row."""
        if outcome.row is None:
            return
        self._rows[image.name] = outcome.row
        if outcome.is_new:
            self._is_new.add(image.name)
            if self._tabulates:
                self._store.tabulate(outcome.row)
        else:
            self._has_found = True
        if outcome.is_final:
            self._bar.update()
            self._num_done += 1
            self._log()

    def _log(self) -> None:
        """Log what a progress bar would show."""
        now, left = time.monotonic(), self._num_pending - self._num_done
        if self._bar.disable and left and now - self._logged_at > LOG_AGAIN_S:
            seconds = (now - self._started) / self._num_done * left
            logger.info("%d of %d images, about %s left", self._num_done, self._num_pending, tqdm.format_interval(seconds))
            self._logged_at = now

    def close(self) -> None:
        """Write what is left to write."""
        self._bar.close()
        self._store.flush()
        # A row that was found may be of a process that was killed before it could put it into the table.
        if self._has_found:
            self._store.rebuild_table()

    def result(self) -> list[Row]:
        """The rows that were computed in this run, in the images' order.

        Raises:
            InferenceFailures: if any image of the run failed, whichever process tried it, or every one was skipped.
        """
        rows = [(image, self._rows[image.name]) for image in self._images if image.name in self._rows]
        skipped = [image for image, row in rows if row["status"] == SKIPPED]
        if skipped:
            logger.warning("%d of %d images cannot be used and are skipped; slides.csv says why", len(skipped), len(self._images))
        # Where no image can be used, something else is wrong.
        counted = FINISHED if len(skipped) == len(self._images) else (*FINISHED, SKIPPED)
        failures = [(image, row) for image, row in rows if row["status"] not in counted]
        if failures:
            reasons = "\n".join(f"{image.path}: {row['reason']}" for image, row in failures)
            raise InferenceFailures(
                f"{len(failures)} of {len(self._images)} images failed:\n{reasons}", [row for _, row in failures]
            )
        return [row for image, row in rows if image.name in self._is_new]


def run_cohort(mapper: Mapper, images: Sequence[ImageInput], output_dir: str | Path) -> list[Row]:
    """Map every image that is not finished yet, in this process; others may do the same in the same folder at the same time.

    An image is finished when its row says ``ok`` or ``no tissue``, its files exist, and it was made with the same settings,
    weights included, from a file of the same name and content. Each is done by one process, see `RowStore`; a process that is
    killed loses the image that it was at, which the others take over. One that fails is tried once more when the others are
    done. Images under which a process died come last, so that they cannot keep the others from being done.

    Args:
        mapper: makes the maps.
        images: with distinct names, see `find_images`.
        output_dir: of the results.

    Returns:
        the rows of the images that were computed now, by this process.

    Raises:
        InferenceFailures: after everything else is done, naming each image that failed; its row says why.
        StorageError: at once, where nothing more can be written: no image failed, and the same call resumes from there.
        DeviceFailure: at once, if the device of this process computes no more: every other image would fail as well. The one
            that it was at stays unfinished.
    """
    with logging_redirect_tqdm():
        worker = CohortWorker(mapper, output_dir, tabulates=True)
        worker.store.rebuild_table()
        return run_images(worker, images)


def run_images(worker: CohortWorker, images: Sequence[ImageInput]) -> list[Row]:
    """`run_cohort` in a folder whose table is up to date, or need not be for other images than these.

    Args:
        worker: of the folder; it puts finished rows into the table.
        images: see `run_cohort`.
    """
    title_of = {image.name: f"{index}/{len(images)} {image.name}" for index, image in enumerate(images, start=1)}
    known = known_rows(worker.store, images)
    queue = in_order(worker.unfinished(images), known)
    tally = Tally(worker.store, images, len(queue), tabulates=False)
    said_at, is_patient = 0.0, True
    under_way: deque[tuple[ImageInput, Future[Outcome]]] = deque()
    try:
        while queue:
            later: list[ImageInput] = []
            is_idle = True

            for index, image in enumerate(queue, start=1):
                following = itertools.islice(queue, index, None)
                begun = worker.begin(image, known.get(image.name), title_of[image.name], following, is_patient)
                under_way.append((image, begun))
                is_patient = is_patient or not begun.done() or begun.result().row is not None
                while len(under_way) > 1 or (under_way and under_way[0][1].done()):
                    is_idle = not _collect(under_way, tally, later) and is_idle
            while under_way:
                is_idle = not _collect(under_way, tally, later) and is_idle
            queue = later
            if queue and is_idle and is_patient:
                is_patient = False
            elif queue and is_idle:
                if time.monotonic() - said_at > LOG_AGAIN_S:
                    logger.info("waiting for other processes, which are working on: %s", whereabouts(worker.store, queue))
                    said_at = time.monotonic()
                time.sleep(POLL_S)
    finally:
        worker.close()
        for image, future in under_way:
            if future.exception() is None:
                tally.add(image, future.result())
        tally.close()
    return tally.result()


def _collect(under_way: deque[tuple[ImageInput, Future[Outcome]]], tally: Tally, later: list[ImageInput]) -> bool:
    """Count the attempt that began first, and put its image after the others if need be; whether there was anything to do."""
    image, future = under_way[0]
    outcome = future.result()
    under_way.popleft()
    tally.add(image, outcome)
    if not outcome.is_final:
        later.append(image)
    return outcome.row is not None


def known_rows(store: RowStore, images: Sequence[ImageInput]) -> dict[str, Row]:
    """The images' rows by name, of those that have one."""
    rows = {image.name: store.read(image.name) for image in images}
    return {name: row for name, row in rows.items() if row is not None}


def in_order(images: Sequence[ImageInput], known: Mapping[str, Row]) -> list[ImageInput]:
    """The images, those last under which a process died - or is at work now."""
    return sorted(images, key=lambda image: known.get(image.name, {}).get("status") == UNFINISHED)


def whereabouts(store: RowStore, images: Sequence[ImageInput], limit: int = 8) -> str:
    """Names of images with machine and process number of who began them."""
    workers = [f"{image.name} ({(store.read(image.name) or {}).get('worker')})" for image in images[:limit]]
    return ", ".join(workers) + (", ..." if len(images) > limit else "")
