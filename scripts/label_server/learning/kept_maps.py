"""Maps of slides, each made once for each version of a model and kept."""

from __future__ import annotations

import threading
from pathlib import Path

from shared.inference.cohort.finished import FINISHED
from shared.inference.cohort.worker import CohortWorker
from shared.inference.inputs import ImageInput
from shared.inference.row import Row

from ..refusal import Refusal
from .served_model import LoadedModel


class KeptMaps:
    """Maps under ``<folder>/<model>/<weights>/``: ``<slide>.ome.tif``, ``.geojson``, ``.png`` and ``slides.csv``, as every
    inference of the project leaves them.

    A slide that changes on disk is mapped anew, and so is every slide when the model gets other weights; what was made with the
    former weights stays for a way back. One slide is computed at a time; what is there is given out meanwhile.

    Args:
        folder: of all maps.
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

    def map_slide(self, name: str, model: LoadedModel, image_id: str, path: Path, mpp: float | None = None) -> Row:
        """Map a whole slide unless it is mapped; its row.

        Args:
            name: of the folder in which the maps of the model are kept.
            model: which maps.
            image_id: under which the slide is known.
            path: of the slide.
            mpp: micrometres per level-0 pixel, where the file does not say.

        Raises:
            Refusal: if it cannot be read or mapped.
        """
        image = ImageInput(path, image_id, mpp)
        with self._computing:
            worker = CohortWorker(model.mapper, self.folder_of(name, model))
            outcome = worker.attempt(image, worker.store.read(image.name), image_id)
            if outcome.row is None:
                raise Refusal(f"another process is mapping {image_id}: ask again later", 409)
            if outcome.is_new:
                worker.store.tabulate(outcome.row)
                worker.store.flush()
        if outcome.row["status"] not in FINISHED:
            reason = str(outcome.row["reason"])
            # What the file is to blame for, and what not.
            raise Refusal(f"{image_id} cannot be mapped: {reason}", 422 if reason.startswith("ValueError") else 500)
        return outcome.row
