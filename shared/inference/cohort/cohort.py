"""Many images into one output folder: finished ones skipped, failures recorded, and several processes at work at once."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ...features.slide_features import FEATURES_SUFFIX
from ...writers.storage import StorageError
from ..device_errors import DeviceFailure, device_error
from ..inputs import ImageInput
from ..row import Row
from .finished import FAILED, FEATURES, FINISHED, NO_TISSUE, OK, UNFINISHED, discard, fingerprint, is_finished, result_suffixes
from .folder_settings import claim_folder
from .row_store import RowStore

logger = logging.getLogger(__name__)

# An image that fails is tried once more, after the others; one whose process dies under it might kill every process.
MAX_ATTEMPTS, MAX_DEATHS = 2, 3
POLL_S = 0.5
SAY_AGAIN_S = 60.0


class InferenceFailures(RuntimeError):
    """Some images of a run could not be mapped or embedded; the others are finished."""


class Mapper(Protocol):
    """What a cohort needs of a `SlideMapper` or a `SlideEmbedder`."""

    def map_image(self, image: ImageInput, output_dir: str | Path, title: str = "") -> Row: ...

    def expect(self, image: ImageInput) -> None: ...

    def settings(self) -> dict[str, Any]: ...


class Outcome(NamedTuple):
    """What became of one attempt: the image's row, None while another process is at work on it; whether it was computed now."""

    row: Row | None
    is_new: bool

    @property
    def is_final(self) -> bool:
        """Whether there is nothing more to do in this run."""
        if self.row is None:
            return False
        return self.row["status"] in FINISHED or self.row["attempts"] >= MAX_ATTEMPTS


class CohortWorker:
    """Maps single images into a folder that others may be writing to as well.

    Args:
        mapper: makes the maps.
        output_dir: gets each image's files, ``rows/``, ``slides.csv`` and ``settings.json``.

    Raises:
        ValueError: if the folder holds features, or is to hold them and holds something else, see `claim_folder`.
    """

    def __init__(self, mapper: Mapper, output_dir: str | Path) -> None:
        self.mapper, self.output_dir = mapper, Path(output_dir)
        self.settings = mapper.settings()
        self._num_mapped = 0
        self._suffixes = result_suffixes(self.settings)
        # Before anything else is written there.
        claim_folder(self.output_dir, self.settings)
        self.store = RowStore(output_dir)

    def unfinished(self, images: Sequence[ImageInput]) -> list[ImageInput]:
        """The images that are not finished with these settings and this content."""
        checked = tqdm(images, desc="finished?", unit="image", leave=False, disable=None)
        left = [image for image in checked if self._finished_row(image) is None]
        if len(left) < len(images):
            logger.info("%d of %d images are finished: skipped", len(images) - len(left), len(images))
        return left

    def attempt(self, image: ImageInput, known: Row | None, title: str = "", following: ImageInput | None = None) -> Outcome:
        """Map one image unless it is finished or another process is at work on it; an error becomes the row's reason.

        Args:
            image: what to map.
            known: its row when the run began. What has been tried since then, by any process, counts as tried in this run.
            title: for log and progress bar.
            following: which image is likely to come next, to be opened while this one is computed.

        Raises:
            DeviceFailure: if the device of this process computes no more. The row stays unfinished, the attempt does not count:
                whoever comes next maps the image. Only when the devices of several processes, each of which had mapped other
                images, failed at the same one, that image is given up.
        """
        with self.store.claim(image.name) as is_mine:
            if not is_mine:
                return Outcome(None, False)
            # Another process may have finished it a moment ago.
            row = self._finished_row(image)
            if row is not None:
                return Outcome(row, False)
            row, key = self.store.read(image.name), fingerprint(self.settings, image)
            tried: Row = {} if row is None or row == known else row
            attempts, num_devices = tried.get("attempts", 0), tried.get("device_failures", 0)
            status = None if row is None else row["status"]
            if status == FAILED and attempts >= MAX_ATTEMPTS:
                return Outcome(row, False)
            begun = {"slide": image.name, "status": UNFINISHED, "reason": None, "attempts": attempts + 1} | _whereabouts(image)
            if status in FINISHED and not image.path.exists():
                # Its result, whatever it was made with, is all that there is: it stays, and so does its row.
                reason = f"ValueError: {image.path} is not there any more; what was made of it before stays"
                return Outcome(begun | {"status": FAILED, "reason": reason, "attempts": MAX_ATTEMPTS}, False)
            foreign = self._foreign_features(image) if row is None else None
            if foreign is not None:
                reason = f"ValueError: {foreign} is there and was not written by these runs: move it away to embed the slide"
                return Outcome(begun | {"status": FAILED, "reason": reason, "attempts": MAX_ATTEMPTS}, False)
            if row is not None and status == UNFINISHED and max(attempts, num_devices) >= MAX_DEATHS:
                reason = f"{attempts} processes died while they mapped it, the last one {row.get('worker')}"
                if num_devices >= MAX_DEATHS:
                    reason = f"the devices of {num_devices} processes that had mapped other images failed at it: {row['reason']}"
                row = begun | {"status": FAILED, "reason": reason, "attempts": max(attempts, MAX_ATTEMPTS), "fingerprint": key}
                discard(self.output_dir, image.name, self.settings)
            else:
                self.store.write(begun)
                if status in FINISHED:
                    # The table must not go on praising files that are removed now.
                    self.store.tabulate(begun)
                    self.store.flush()
                discard(self.output_dir, image.name, self.settings)
                if following is not None:
                    self.mapper.expect(following)
                try:
                    row = begun | self._map(image, title) | {"fingerprint": key}
                except DeviceFailure as failure:
                    # A process whose device never worked says nothing of the image.
                    num_devices += self._num_mapped > 0
                    self._leave(begun | {"attempts": attempts, "device_failures": num_devices, "reason": str(failure)})
                    raise
                self._num_mapped += row["status"] == OK
            self.store.write(row)
            return Outcome(row, True)

    def _finished_row(self, image: ImageInput) -> Row | None:
        row = self.store.read(image.name)
        if row is None or row["status"] not in FINISHED:
            return None
        return row if is_finished(self.output_dir, row, fingerprint(self.settings, image), self._suffixes) else None

    def _foreign_features(self, image: ImageInput) -> Path | None:
        """A file of features in the place of an image's, which has no row: whoever wrote it, it is not ours to replace."""
        path = self.output_dir / f"{image.name}{FEATURES_SUFFIX}"
        return path if self.settings.get("result") == FEATURES and path.exists() else None

    def _leave(self, row: Row) -> None:
        """Leave an image to others."""
        discard(self.output_dir, row["slide"], self.settings)
        self.store.write(row)
        self.store.tabulate(row)
        self.store.flush()

    def _map(self, image: ImageInput, title: str) -> Row:
        started = time.perf_counter()
        row: Row
        try:
            row = self.mapper.map_image(image, self.output_dir, title).copy()
            # Whoever asks for whole images gets tiles without tissue too.
            row["status"] = NO_TISSUE if row["num_tiles"] == 0 else OK
            found = f"{row['num_features']} features" if "num_features" in row else f"{row['num_regions']} regions"
            logger.info("%s: %s, %.0f s", title, found, time.perf_counter() - started)
        except Exception as error:
            if isinstance(error, StorageError) and error.concerns_all:
                # No slide is to blame, and the others would fail as well: it stays unfinished.
                discard(self.output_dir, image.name, self.settings)
                raise
            sticky = device_error(error)
            if sticky is not None:
                said = (str(sticky).splitlines() or [""])[0]
                worker, device = _whereabouts(image)["worker"], getattr(self.mapper, "device", "the device")
                raise DeviceFailure(
                    f"{device} of {worker} computes no more ({type(sticky).__name__}: {said}), at {image.path}, which is left "
                    "unfinished for another process or the next run"
                ) from error
            row = {"status": FAILED, "reason": " ".join(f"{type(error).__name__}: {error}".split())}
            # What the user can mend needs no traceback.
            logger.error("%s failed: %s", title, row["reason"], exc_info=not isinstance(error, ValueError | StorageError))
            discard(self.output_dir, image.name, self.settings)
        return row | {"seconds": round(time.perf_counter() - started, 2)}


class Tally:
    """Rows and failures of a run as they come in, its table and its progress bar over images.

    Args:
        store: of the output folder.
        images: of the run, finished ones too.
        num_pending: those that are not.
    """

    def __init__(self, store: RowStore, images: Sequence[ImageInput], num_pending: int) -> None:
        self._store, self._images = store, images
        self._rows: dict[str, Row] = {}
        self._is_new: set[str] = set()
        # Slides differ in size: the mean over all so far says more than the latest.
        self._bar = tqdm(total=num_pending, desc="images", unit="image", smoothing=0, disable=None)
        self._num_pending, self._num_done = num_pending, 0
        self._started = self._said_at = time.monotonic()

    def add(self, image: ImageInput, outcome: Outcome) -> None:
        """Count an attempt that found or made a row."""
        if outcome.row is None:
            return
        self._rows[image.name] = outcome.row
        if outcome.is_new:
            self._is_new.add(image.name)
            self._store.tabulate(outcome.row)
        if outcome.is_final:
            self._bar.update()
            self._num_done += 1
            self._say()

    def _say(self) -> None:
        """What a bar would show, for a log file."""
        now, left = time.monotonic(), self._num_pending - self._num_done
        if self._bar.disable and left and now - self._said_at > SAY_AGAIN_S:
            seconds = (now - self._started) / self._num_done * left
            logger.info("%d of %d images, about %s left", self._num_done, self._num_pending, tqdm.format_interval(seconds))
            self._said_at = now

    def close(self) -> None:
        """Write what is left to write."""
        self._bar.close()
        self._store.flush()

    def result(self) -> list[Row]:
        """The rows that were computed in this run, in the images' order.

        Raises:
            InferenceFailures: if any image of the run failed, whichever process tried it.
        """
        rows = [(image, self._rows[image.name]) for image in self._images if image.name in self._rows]
        failures = [f"{image.path}: {row['reason']}" for image, row in rows if row["status"] not in FINISHED]
        if failures:
            raise InferenceFailures(f"{len(failures)} of {len(self._images)} images failed:\n" + "\n".join(failures))
        return [row for image, row in rows if image.name in self._is_new]


def run_cohort(mapper: Mapper, images: Sequence[ImageInput], output_dir: str | Path) -> list[Row]:
    """Map every image that is not finished yet, in this process; others may do the same in the same folder at the same time.

    An image is finished when its row says ``ok`` or ``no tissue``, its files exist, and it was made with the same settings,
    weights included, from a file of the same name and content. Each is done by one process, see `RowStore`; a process that is
    killed loses the image that it was at, which the others take over. One that fails is tried once more when the others are
    done. Images under which a process died come last, so that they cannot keep the others from being done.

    Args:
        mapper: makes the maps.
        images: with names of their own, see `find_images`.
        output_dir: of the results.

    Returns:
        the rows of the images that were computed now, by this process.

    Raises:
        InferenceFailures: after everything else is done, naming each image that failed; its row says why.
        StorageError: at once, where nothing more can be written: no image failed, and the same call goes on from there.
        DeviceFailure: at once, if the device of this process computes no more: every other image would fail as well. The one that
            it was at stays unfinished.
    """
    with logging_redirect_tqdm():
        worker = CohortWorker(mapper, output_dir)
        worker.store.rebuild_table()
        title_of = {image.name: f"{index}/{len(images)} {image.name}" for index, image in enumerate(images, start=1)}
        known = known_rows(worker.store, images)
        queue = in_order(worker.unfinished(images), known)
        tally = Tally(worker.store, images, len(queue))
        said_at = 0.0
        try:
            while queue:
                later, is_idle = [], True
                for image, following in zip(queue, [*queue[1:], None], strict=True):
                    outcome = worker.attempt(image, known.get(image.name), title_of[image.name], following)
                    tally.add(image, outcome)
                    is_idle = is_idle and outcome.row is None
                    if not outcome.is_final:
                        later.append(image)
                queue = later
                if queue and is_idle:
                    if time.monotonic() - said_at > SAY_AGAIN_S:
                        logger.info("waiting for other processes, which are at: %s", whereabouts(worker.store, queue))
                        said_at = time.monotonic()
                    time.sleep(POLL_S)
        finally:
            tally.close()
    return tally.result()


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


def _whereabouts(image: ImageInput) -> Row:
    return {"worker": f"{platform.node()}:{os.getpid()}", "path": str(image.path)}
