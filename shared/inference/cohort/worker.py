"""One process's share of a cohort: single images mapped into a folder that others may be writing to as well."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from filelock import BaseFileLock
from tqdm import tqdm

from ...writers.storage import StorageError
from ..computed_image import ComputedImage
from ..device_errors import DeviceFailure, device_error
from ..inputs import ImageInput
from ..row import Row
from ..tiles.network_map import AnswersNotFinite
from .finished import (
    FAILED,
    FINISHED,
    NO_TISSUE,
    OK,
    SKIPPED,
    UNFINISHED,
    accepted_fingerprints,
    discard,
    fingerprint,
    foreign_file,
    foreign_reason,
    is_finished,
    result_suffixes,
)
from .folder_settings import begun_row, claim_folder
from .row_store import RowStore

logger = logging.getLogger(__name__)

# An image that fails is tried once more, after the others; one whose process dies under it might kill every process.
MAX_ATTEMPTS, MAX_DEATHS = 2, 3


class Mapper(Protocol):
    """The interface of a `SlideMapper` or a `SlideEmbedder` that a cohort uses."""

    def map_image(self, image: ImageInput, output_dir: str | Path, title: str = "") -> Row: ...

    def prepare(self, image: ImageInput) -> None: ...

    def settings(self) -> dict[str, Any]: ...


@runtime_checkable
class TwoStepMapper(Protocol):
    """A `Mapper` that can write an image's files while it computes the next."""

    def compute_image(self, image: ImageInput, output_dir: str | Path, title: str = "") -> ComputedImage: ...


class Outcome(NamedTuple):
    """The outcome of one attempt: the image's row, None while another process works on it; whether it was computed now."""

    row: Row | None
    is_new: bool

    @property
    def is_final(self) -> bool:
        """Whether there is nothing more to do in this run."""
        if self.row is None:
            return False
        return self.row["status"] in (*FINISHED, SKIPPED) or self.row["attempts"] >= MAX_ATTEMPTS


class _Begun(NamedTuple):
    """An image to be mapped: its row so far, and what its final row or that of a device's failure needs besides."""

    row: Row
    key: str
    num_devices: int


class CohortWorker:
    """Maps single images into a folder that others may be writing to as well.

    Args:
        mapper: makes the maps.
        output_dir: gets each image's files, ``rows/``, ``slides.csv`` and ``settings.json``.
        tabulates: put finished rows into the table at once; otherwise the caller does it.

    Raises:
        ValueError: if the folder holds features, or is to hold them and holds something else, see `claim_folder`.
    """

    def __init__(self, mapper: Mapper, output_dir: str | Path, tabulates: bool = False) -> None:
        self.mapper, self.output_dir, self.tabulates = mapper, Path(output_dir), tabulates
        self.settings = mapper.settings()
        self._num_mapped = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write-results")
        self._writing: Future[Outcome] | None = None
        self._next: dict[str, BaseFileLock] = {}
        self._suffixes = result_suffixes(self.settings)
        # Before anything else is written there.
        self._masks = claim_folder(self.output_dir, self.settings)
        self.store = RowStore(output_dir)

    def unfinished(self, images: Sequence[ImageInput]) -> list[ImageInput]:
        """The images that are not finished with these settings and this content."""
        checked = tqdm(images, desc="finished?", unit="image", leave=False, disable=None)
        left = [image for image in checked if self._finished_row(image) is None]
        if len(left) < len(images):
            logger.info("%d of %d images are already finished and skipped", len(images) - len(left), len(images))
        return left

    def attempt(
        self,
        image: ImageInput,
        known: Row | None,
        title: str = "",
        following: Iterable[ImageInput] = (),
        is_patient: bool = False,
    ) -> Outcome:
        """`begin`, and wait until the files are written."""
        return self.begin(image, known, title, following, is_patient).result()

    @property
    def reserved(self) -> str | None:
        """Name of the image that is to come next here; None where there is none."""
        return next(iter(self._next), None)

    def begin(
        self,
        image: ImageInput,
        known: Row | None,
        title: str = "",
        following: Iterable[ImageInput] = (),
        is_patient: bool = False,
    ) -> Future[Outcome]:
        """Map one image unless it is finished or another process is at work on it; an error becomes the row's reason.

        The image's files are written in the background, while the next one is computed; no more than one waits for it. It is
        claimed until they are there, and so is its row.

        Args:
            image: what to map.
            known: its row when the run began. What has been tried since then, by any process, counts as tried in this run.
            title: for log and progress bar.
            following: images that may come next, in order. The first that is free is reserved, and opened while this one is
                computed.
            is_patient: leave the image to a process that has reserved it.

        Returns:
            what becomes of it. Whatever `begin` may raise, this may raise of the writing.

        Raises:
            DeviceFailure: if the device of this process computes no more. The row stays unfinished, the attempt does not count:
                the next process maps the image. Only when the devices of several processes, each of which had mapped other
                images, failed at the same one, that image is given up.
            StorageError: if nothing more can be written, of this image or the one before.
            ValueError: if features are to be written, and a run with other settings has claimed the folder, see `begun_row`.
        """
        if self._writing is not None and self._writing.done():
            self._writing.result()
        reservation = self._next.pop(image.name, None)
        if reservation is None and is_patient and self.store.is_reserved(image.name):
            return _completed(Outcome(None, False))
        with ExitStack() as stack:
            is_mine = stack.enter_context(self.store.claim(image.name))
            if reservation is not None:
                reservation.release()
            if not is_mine:
                return _completed(Outcome(None, False))
            begun = self._begun(image, known)
            if isinstance(begun, Outcome):
                return _completed(begun)
            self._reserve_one(following)
            started = time.perf_counter()
            computed = self._compute(image, begun, title)
            if not isinstance(computed, ComputedImage):
                return _completed(self._ended(begun, computed, started))
            computing_s = time.perf_counter() - started
            try:
                # Of those before no more than one is being written.
                self._wait()
            except BaseException:
                computed.close()
                discard(self.output_dir, image.name, self.settings)
                raise
            held = stack.pop_all()

            def write() -> Outcome:
                # As if the writing of the image before had not been waited for.
                started = time.perf_counter() - computing_s
                with held:
                    return self._ended(begun, self._written(computed, image, title, started), started)

            self._writing = self._writer.submit(write)
            return self._writing

    def close(self) -> None:
        """Wait for files that are being written, and release the image that was to come next."""
        self._writer.shutdown(wait=True)
        for reservation in self._next.values():
            reservation.release()
        self._next.clear()

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _reserve_one(self, following: Iterable[ImageInput]) -> None:
        """Reserve one of the images to come next here, and begin to open it."""
        for image in () if self._next else following:
            reservation = self.store.reserve(image.name)
            if reservation is None:
                continue
            if not self.store.is_claimed(image.name) and self._finished_row(image) is None:
                self._next[image.name] = reservation
                self.mapper.prepare(image)
                return
            reservation.release()

    def _begun(self, image: ImageInput, known: Row | None) -> _Begun | Outcome:
        """Begin a claimed image that is to be mapped, and write its row; otherwise return its outcome."""
        # Another process may have finished it a moment ago.
        row = self._finished_row(image)
        if row is not None:
            return Outcome(row, False)
        row, key = self.store.read(image.name), fingerprint(self.settings, image)
        tried: Row = {} if row is None or row == known else row
        attempts, num_devices = tried.get("attempts", 0), tried.get("device_failures", 0)
        status = None if row is None else row["status"]
        if (status == FAILED and attempts >= MAX_ATTEMPTS) or (status == SKIPPED and tried):
            return Outcome(row, False)
        begun = {"slide": image.name, "status": UNFINISHED, "reason": None, "attempts": attempts + 1} | _whereabouts(image)
        if status in FINISHED and not image.path.exists():
            # Its result, whatever it was made with, is all that there is: it stays, and so does its row.
            reason = f"ValueError: {image.path} no longer exists; earlier results for it are kept"
            return Outcome(begun | {"status": FAILED, "reason": reason, "attempts": MAX_ATTEMPTS}, False)
        # Beside a row that is damaged lies what the run that wrote it has left.
        is_known = self.store.is_damaged(image.name)
        foreign = None if is_known else foreign_file(self.output_dir, image.name, self.settings, row)
        if foreign is not None:
            reason = foreign_reason(foreign, image.name, row)
            return Outcome(begun | {"status": FAILED, "reason": reason, "attempts": MAX_ATTEMPTS}, False)
        if row is not None and status == UNFINISHED and max(attempts, num_devices) >= MAX_DEATHS:
            reason = f"{attempts} processes died while they mapped it, the last one {row.get('worker')}"
            if num_devices >= MAX_DEATHS:
                reason = f"the devices of {num_devices} processes that had mapped other images failed on it: {row['reason']}"
            row = begun | {"status": FAILED, "reason": reason, "attempts": max(attempts, MAX_ATTEMPTS), "fingerprint": key}
            discard(self.output_dir, image.name, self.settings)
            return self._new(row)
        with begun_row(self.output_dir, self.settings):
            self.store.write(begun)
        if status in FINISHED:
            # The table must no longer list files that are removed now.
            self.store.tabulate(begun)
            self.store.flush()
        discard(self.output_dir, image.name, self.settings)
        return _Begun(begun, key, num_devices)

    def _finished_row(self, image: ImageInput) -> Row | None:
        row = self.store.read(image.name)
        if row is None or row["status"] not in FINISHED:
            return None
        accepted = accepted_fingerprints(self.settings, image, self._masks)
        return row if is_finished(self.output_dir, row, accepted, self._suffixes) else None

    def _leave(self, row: Row) -> None:
        """Leave an image to others."""
        discard(self.output_dir, row["slide"], self.settings)
        self.store.write(row)
        self.store.tabulate(row)
        self.store.flush()

    def _compute(self, image: ImageInput, begun: _Begun, title: str) -> ComputedImage | Row:
        """The results of an image that remain to be written, its numbers if they are written already, or why it failed."""
        started = time.perf_counter()
        try:
            if isinstance(self.mapper, TwoStepMapper):
                return self.mapper.compute_image(image, self.output_dir, title)
            return self._finished(self.mapper.map_image(image, self.output_dir, title), title, started)
        except Exception as error:
            try:
                return self._failed(image, error, title)
            except DeviceFailure as failure:
                self._wait()
                # A process whose device never worked says nothing of the image.
                num_devices, attempts = begun.num_devices + (self._num_mapped > 0), begun.row["attempts"] - 1
                self._leave(begun.row | {"attempts": attempts, "device_failures": num_devices, "reason": str(failure)})
                raise

    def _written(self, computed: ComputedImage, image: ImageInput, title: str, started: float) -> Row:
        try:
            return self._finished(computed.write(), title, started)
        except Exception as error:
            return self._failed(image, error, title)

    def _ended(self, begun: _Begun, numbers: Row, started: float) -> Outcome:
        """Write and return the row of an image that was tried."""
        self._num_mapped += numbers["status"] == OK
        seconds: Row = {"seconds": round(time.perf_counter() - started, 2), "fingerprint": begun.key}
        return self._new(begun.row | numbers | seconds)

    def _new(self, row: Row) -> Outcome:
        self.store.write(row)
        if self.tabulates:
            self.store.tabulate(row)
        return Outcome(row, True)

    def _finished(self, numbers: Row, title: str, started: float) -> Row:
        # Whoever asks for whole images gets tiles without tissue too.
        row = numbers | {"status": NO_TISSUE if numbers["num_tiles"] == 0 else OK}
        found = f"{row['num_features']} features" if "num_features" in row else f"{row['num_regions']} regions"
        logger.info("%s: %s, %.0f s", title, found, time.perf_counter() - started)
        return row

    def _failed(self, image: ImageInput, error: Exception, title: str) -> Row:
        """Why an image failed, for its row.

        Raises:
            StorageError, DeviceFailure: if it is not to blame.
        """
        if isinstance(error, StorageError) and error.concerns_all:
            # No slide is to blame, and the others would fail as well: it stays unfinished.
            discard(self.output_dir, image.name, self.settings)
            raise error
        sticky = device_error(error)
        if sticky is not None:
            said = (str(sticky).splitlines() or [""])[0]
            worker, device = _whereabouts(image)["worker"], getattr(self.mapper, "device", "the device")
            raise DeviceFailure(
                f"{device} of {worker} has stopped working ({type(sticky).__name__}: {said}), at {image.path}, which is left "
                "unfinished for another process or the next run"
            ) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        is_unusable = isinstance(error, ValueError) and not isinstance(error, AnswersNotFinite)
        if getattr(self.mapper, "skip_problems", False) and is_unusable:
            logger.warning("%s is skipped: %s", title, reason)
            discard(self.output_dir, image.name, self.settings)
            return {"status": SKIPPED, "reason": reason}
        # What the user can mend needs no traceback.
        logger.error("%s failed: %s", title, reason, exc_info=error if not isinstance(error, ValueError | StorageError) else None)
        discard(self.output_dir, image.name, self.settings)
        return {"status": FAILED, "reason": reason}


def _completed(outcome: Outcome) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(outcome)
    return future


def _whereabouts(image: ImageInput) -> Row:
    return {"worker": f"{platform.node()}:{os.getpid()}", "path": str(image.path)}
