"""Maps of slides, made once for each version of a model and stored."""

from __future__ import annotations

import threading
from pathlib import Path

from shared.inference.cohort.finished import FINISHED, file_problem, fingerprint
from shared.inference.cohort.worker import CohortWorker
from shared.inference.inputs import ImageInput
from shared.inference.row import Row

from ..refusal import Refusal
from .served_model import LoadedModel


class KeptMaps:
    """Maps in ``<folder>/<model>/<weights>/``: ``<slide>.ome.tif``, ``.geojson``, ``.png`` and ``slides.csv``, as every
    inference of the project writes them.

    A slide is mapped again if its file changes or the model gets other weights; the maps of earlier weights are kept, so that one
    can return to them. One slide is mapped at a time; stored maps are available meanwhile.

    Args:
        folder: folder of all maps.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._computing = threading.Lock()

    def folder_of(self, name: str, model: LoadedModel) -> Path:
        return self.folder / name / model.key

    def row(self, name: str, model: LoadedModel, image_id: str, path: Path) -> Row | None:
        """The row of a slide that this version has mapped; None if it has not."""
        worker = CohortWorker(model.mapper, self.folder_of(name, model))
        image = ImageInput(path, image_id)
        return None if worker.unfinished([image]) else worker.store.read(image.name)

    def fault_of_file(self, name: str, model: LoadedModel, image_id: str, path: Path) -> str | None:
        """Why this version could not map a slide, if that was the fault of its file, which has not changed; None otherwise."""
        row = CohortWorker(model.mapper, self.folder_of(name, model)).store.read(image_id)
        if row is None or row["status"] in FINISHED or not _is_of_file(row):
            return None
        return str(row["reason"]) if row.get("fingerprint") == fingerprint(model.settings, ImageInput(path, image_id)) else None

    def map_slide(self, name: str, model: LoadedModel, image_id: str, path: Path, mpp: float | None = None) -> Row:
        """Map a whole slide unless it is already mapped, and return its row.

        Args:
            name: name of the folder for the maps of the model.
            model: model that maps the slide.
            image_id: identifier of the slide.
            path: path of the slide.
            mpp: micrometres per level-0 pixel, if the file does not state it.

        Raises:
            Refusal: if it cannot be read or mapped.
        """
        image = ImageInput(path, image_id, mpp)
        with self._computing:
            worker = CohortWorker(model.mapper, self.folder_of(name, model))
            outcome = worker.attempt(image, worker.store.read(image.name), image_id)
            if outcome.row is None:
                raise Refusal(f"another process is mapping {image_id}: try again later", 409)
            if outcome.is_new:
                worker.store.tabulate(outcome.row)
                worker.store.flush()
        if outcome.row["status"] not in FINISHED:
            reason = str(outcome.row["reason"])
            raise Refusal(f"{image_id} cannot be mapped: {reason}", 422 if _is_of_file(outcome.row) else 500)
        return outcome.row


def _is_of_file(row: Row) -> bool:
    """Whether a slide failed by the fault of its file, which is a ValueError; anything else is the server's."""
    return file_problem(row) is not None
