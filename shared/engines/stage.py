"""The folder of one training stage: what lies in it, and when the stage is finished."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from ignite.engine import Engine
from torch import Tensor, nn

from ..handlers.runs.files import link_file
from ..handlers.training import StageEvents
from ..networks.weights import load_weights
from ..writers.atomic import atomic_path
from .distributed import rank

logger = logging.getLogger(__name__)

RESUME_POINT = "resume.pt"
WEIGHTS = "model.pt"
HISTORY = "history.csv"
# The threshold that was chosen for the published weights; it lies beside them.
CALIBRATION = "calibration.json"


class Stage(Engine):
    """An engine with a folder, run once: ``model.pt`` says that it is finished, until then it has a resume point.

    Attributes:
        folder: of this stage; its name is the stage's.
        publish_to: a file that gets a copy of the final weights; None for none.
    """

    folder: Path
    publish_to: str | Path | None

    @property
    def weights_file(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def history_file(self) -> Path:
        return self.folder / HISTORY

    @property
    def resume_point(self) -> Path:
        return self.folder / RESUME_POINT

    @property
    def is_finished(self) -> bool:
        return self.weights_file.is_file()

    def with_final_weights(self, network: nn.Module) -> nn.Module:
        """The network with the weights of the finished stage, in eval mode.

        Raises:
            ValueError: if the stage has not finished.
        """
        if not self.is_finished:
            raise ValueError(
                f"{self.weights_file} does not exist: run the stage {self.folder.name!r} first (run_{self.folder.name})"
            )
        load_weights(network, self.weights_file)
        return network

    def log_finished(self) -> None:
        """Log that there is nothing to do; publish the weights again where their copy has gone."""
        logger.info(f"{self.folder.name}: already finished, using its weights from {self.weights_file}")
        if rank() == 0 and self.publish_to is not None and not Path(self.publish_to).is_file():
            with atomic_path(self.publish_to) as temporary:
                if not link_file(self.weights_file, temporary):
                    shutil.copyfile(self.weights_file, temporary)

    def save_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Publish the final weights, as tensors of no device, and finish the stage.

        A threshold that was chosen for the weights published before goes first, and is chosen anew for these: whenever the run
        is killed, none lies beside weights that it was not chosen for.
        """
        weights = {name: values.cpu() if isinstance(values, Tensor) else values for name, values in weights.items()}
        # Last the file that says that the stage is finished; where it can be, it is the published one's second name.
        if self.publish_to is not None:
            Path(self.publish_to).with_name(CALIBRATION).unlink(missing_ok=True)
            with atomic_path(self.publish_to) as temporary:
                temporary.unlink(missing_ok=True)
                torch.save(weights, temporary)
        with atomic_path(self.weights_file) as temporary:
            # What a killed run has left may be a second name too, and is not written through.
            temporary.unlink(missing_ok=True)
            if self.publish_to is None or not link_file(Path(self.publish_to), temporary):
                torch.save(weights, temporary)

    def close(self) -> None:
        """Announce the weights and drop the resume point, also for a run that was killed in between."""
        if self.resume_point.is_file():
            self.fire_event(StageEvents.WEIGHTS_SAVED)
            self.resume_point.unlink()
