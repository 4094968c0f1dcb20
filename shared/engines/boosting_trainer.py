"""MIL-Boosting's training: patches of every training image, then a few rounds of boosting an epoch, on a small Ignite engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer, SimpleInferer
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from ..boosting.mil_boost import MILBoost
from ..data.image_dataset import RegionDataset
from ..handlers.tracking import Tracking
from ..handlers.training import StageEvents, training_handlers
from ..networks.boosted_patches import BoostedPatches
from ..networks.encoded.encoded_boosting import EncodedBoosting
from ..writers.atomic import atomic_path
from .distributed import barrier, broadcast_from_first, gather_on_first, num_processes, rank
from .folder_lock import FolderLock
from .stage import WEIGHTS, Stage

logger = logging.getLogger(__name__)

FEATURES = "features.csv"


def patch_bags(
    dataset: RegionDataset,
    features: Callable[[Tensor], Tensor],
    patches_per_image: int | None,
    device: torch.device | str = "cpu",
    inferer: Inferer | None = None,
    passes: int = 1,
    num_workers: int = 0,
    seed: int = 0,
) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """The features of patches of every image: a bag an image.

    Args:
        dataset: of images with labels.
        features: images ``(B, 3, H, W)`` to features of their patches ``(B, F, h, w)``; a module is moved to the device.
        patches_per_image: drawn without replacement from an image's patches; None, or as many as there are, for all.
        device: to compute on.
        inferer: of ``(images, features)``; default: the module itself.
        passes: bags of each image, each with its own draw of the data set's random transform and of patches.
        num_workers: processes that read.
        seed: of the patches; an image's draw depends on it, the pass and the image alone.

    Returns:
        a bag ``(num_patches, F)`` for each image of each pass, and their labels 0 or 1. Of several processes each computes its
        share of the images, and the first one has them all.
    """
    if isinstance(features, nn.Module):
        features.to(device).eval()
    infer = inferer or SimpleInferer()
    share = range(rank(), len(dataset), num_processes())
    found: list[tuple[NDArray[np.float32], int]] = []
    is_silent = None if rank() == 0 else True
    with torch.inference_mode(), tqdm(total=passes * len(share), desc="patches", unit="image", disable=is_silent) as bar:
        for number in range(passes):
            dataset.set_epoch(number)
            of_pass = []
            for batch in DataLoader(Subset(dataset, share), 1, num_workers=num_workers):
                patches = infer(batch["image"].to(device), features)[0].flatten(1).T
                index = int(batch["index"])
                if patches_per_image is not None and patches_per_image < len(patches):
                    drawn = np.random.default_rng((seed, number, index)).permutation(len(patches))[:patches_per_image]
                    patches = patches[torch.from_numpy(np.sort(drawn)).to(device)]
                of_pass.append((patches.cpu().contiguous().numpy(), int(batch["label"] > 0)))
                bar.update()
            found += gather_on_first(of_pass)
    return [bag for bag, _ in found], np.array([label for _, label in found], np.int64)


class BoostingTrainer(Stage, Engine):
    """Boosts trees on patches until the network is full, in a folder, and survives being killed.

    An Ignite engine, because then MLflow, progress, validation and the log are the handlers of every other bundle; but none of
    MONAI's trainers, because there is no gradient step: an epoch is `rounds_per_epoch` rounds of `MILBoost` on all bags, and
    its iterations have nothing to load. The bags are computed when the training begins and stay in memory.

    Of several processes each computes the features of its share of the images; trees grow in the first one, and the others take
    them over. They are those of a single process.

    After every epoch the folder holds a resume point (trees, epoch, history) and ``history.csv``, at the end ``model.pt`` (the
    network's state dict, with the trees in it) and ``features.csv`` (which feature speaks in how many trees, and with which
    weight). The training ends early where no tree lowers the loss.

    Args:
        output_dir: folder of the run, which gets a copy of the final weights.
        name: of the stage and of its folder in `output_dir`.
        device: that computes features; trees grow on the CPU.
        max_epochs: number of epochs.
        rounds_per_epoch: trees an epoch.
        dataset: training images.
        network: gets the trees; `max_epochs` times `rounds_per_epoch` may not leave it trees without room.
        booster: with its settings; a copy of it is fitted.
        patches_per_image, passes: see `patch_bags`.
        inferer: see `patch_bags`.
        validator: a MONAI evaluator to run after every epoch, with `network` in it; None for none.
        tracking: MLflow runs; None for none.
        num_workers: processes that read.
        seed: of the patches.

    Raises:
        ValueError: if the network has no room for all trees, or a number is below 1.
    """

    def __init__(
        self,
        output_dir: str | Path,
        name: str,
        device: torch.device | str,
        max_epochs: int,
        rounds_per_epoch: int,
        dataset: RegionDataset,
        network: BoostedPatches | EncodedBoosting,
        booster: MILBoost,
        patches_per_image: int | None = None,
        passes: int = 1,
        inferer: Inferer | None = None,
        validator: Any = None,
        tracking: Tracking | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(_boost)  # type: ignore[arg-type]
        if min(max_epochs, rounds_per_epoch, passes) < 1 or (patches_per_image is not None and patches_per_image < 1):
            raise ValueError(
                f"need numbers of at least 1; got {max_epochs=}, {rounds_per_epoch=}, {passes=}, {patches_per_image=}"
            )
        self.num_trees = min(max_epochs * rounds_per_epoch, booster.n_estimators)
        if self.num_trees > len(network.feature):
            raise ValueError(f"the network has room for {len(network.feature)} trees, but {self.num_trees} are to be grown")
        self.folder, self.publish_to = Path(output_dir) / name, Path(output_dir) / WEIGHTS
        self.device, self.max_epochs, self.rounds_per_epoch = device, max_epochs, rounds_per_epoch
        self.dataset, self.network, self.validator = dataset, network.to(device).eval(), validator
        self.booster = clone(booster).set_params(warm_start=True)
        self.patches_per_image, self.passes, self.num_workers, self.seed = patches_per_image, passes, num_workers, seed
        self.inferer = inferer
        self.history: list[dict[str, float]] = []
        self.bags: list[NDArray[np.float32]] = []
        self.labels = np.zeros(0, np.int64)
        self.register_events(*StageEvents)
        for handler in training_handlers(name, tracking, validator):
            handler.attach(self)
        # The last: the resume point holds what the validation of this epoch said.
        self.add_event_handler(Events.EPOCH_COMPLETED, _save_epoch)

    def trained(self) -> nn.Module:
        """The network with the trees of the finished training, in eval mode.

        Raises:
            ValueError: if it has not finished.
        """
        return self.with_final_weights(self.network)

    def run(self) -> None:  # type: ignore[override]
        """Boost from the state of the folder to the end; leave the trees in the network and in ``model.pt``."""
        with FolderLock(self.folder):
            if self.is_finished:
                self.log_finished()
            else:
                self._train()
            if rank() == 0:
                self.close()
            barrier()
        self.trained()

    def _train(self) -> None:
        if not self._restore() or not self._has_ended():
            self.bags, self.labels = patch_bags(
                self.dataset,
                self.network.features,
                self.patches_per_image,
                self.device,
                self.inferer,
                self.passes,
                self.num_workers,
                self.seed,
            )
            super().run([None], max_epochs=self.max_epochs, epoch_length=1)
            self.bags = []
        if rank() == 0:
            self._save_trees()

    def take_trees(self) -> None:
        """Bring the booster's trees into the network."""
        booster = self.booster
        self.network.set_trees(*(torch.from_numpy(array) for array in (booster.feature_, booster.threshold_, booster.value_)))

    def _save_trees(self) -> None:
        with atomic_path(self.folder / FEATURES) as temporary:
            spoken_features(self.booster, self.network.feature_names).to_csv(temporary, index=False)
        self.save_weights({name: values.cpu() for name, values in self.network.state_dict().items()})

    def _has_ended(self) -> bool:
        """True when all trees are there, or fewer than there were rounds: the last round found none that lowers the loss."""
        num_trees = len(self.booster.value_)
        return num_trees == self.num_trees or num_trees < self.state.epoch * self.rounds_per_epoch

    def _restore(self) -> bool:
        if not self.resume_point.is_file():
            return False
        saved = torch.load(self.resume_point, weights_only=True)
        trees = (saved[name].numpy() for name in ("feature", "threshold", "value"))
        self.booster.set_trees(*trees, saved["losses"], saved["num_features"])
        self.take_trees()
        self.history = saved["history"]
        self.load_state_dict({"epoch": saved["epoch"], "max_epochs": self.max_epochs, "epoch_length": 1})
        logger.info(f"{self.folder.name}: resumes after epoch {saved['epoch']} of {self.max_epochs}")
        return True


def spoken_features(booster: MILBoost, names: list[str]) -> pd.DataFrame:
    """Which features the trees look at.

    Args:
        booster: fitted.
        names: of the features.

    Returns:
        ``feature``, ``num_nodes`` that look at it, and ``weight``: the steps of the trees with such nodes, as share of all; the
        heaviest first.
    """
    is_split = np.isfinite(booster.threshold_)
    steps = np.abs(booster.value_).max(axis=1)
    nodes, weights = np.zeros(len(names), int), np.zeros(len(names))
    for feature, split, step in zip(booster.feature_, is_split, steps, strict=True):
        np.add.at(nodes, feature[split], 1)
        weights[np.unique(feature[split])] += step / max(1, len(np.unique(feature[split])))
    table = pd.DataFrame({"feature": names, "num_nodes": nodes, "weight": (weights / max(steps.sum(), 1e-12)).round(6)})
    return table[table["num_nodes"] > 0].sort_values("weight", ascending=False, kind="stable", ignore_index=True)


def _boost(engine: BoostingTrainer, _: Any) -> None:
    booster = engine.booster
    booster.set_params(n_estimators=min(engine.state.epoch * engine.rounds_per_epoch, engine.num_trees))
    if rank() == 0:
        booster.fit(engine.bags, engine.labels)
    if num_processes() > 1:
        names = ("feature_", "threshold_", "value_", "losses_", "n_features_in_")
        booster.set_trees(*broadcast_from_first([getattr(booster, name, None) for name in names]))
    engine.take_trees()
    engine.state.metrics["train_loss"] = booster.losses_[-1]


def _save_epoch(engine: BoostingTrainer) -> None:
    validation = engine.validator.state.metrics if engine.validator is not None else {}
    metrics = {"num_trees": len(engine.booster.value_), **engine.state.metrics, **validation}
    engine.history.append({"epoch": engine.state.epoch, **{name: float(value) for name, value in metrics.items()}})
    if rank() == 0:
        _save_resume_point(engine)
    if engine._has_ended():
        engine.terminate()


def _save_resume_point(engine: BoostingTrainer) -> None:
    # Before the resume point: it may lead a resume point by an epoch, which is then run again, but never lag behind.
    with atomic_path(engine.history_file) as temporary:
        pd.DataFrame(engine.history).to_csv(temporary, index=False)
    trees = {name: torch.from_numpy(getattr(engine.booster, f"{name}_")) for name in ("feature", "threshold", "value")}
    state = {"epoch": engine.state.epoch, "losses": engine.booster.losses_, "num_features": engine.booster.n_features_in_}
    with atomic_path(engine.resume_point) as temporary:
        torch.save({**trees, **state, "history": engine.history}, temporary)
