"""One training stage that survives being killed: a MONAI SupervisedTrainer that resumes, and is skipped once finished."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import Evaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..handlers.tracking import Tracking
from ..handlers.training import StageEvents, training_handlers
from ..networks.encoded.encoded_network import EncodedNetwork
from ..networks.weights import load_initial_weights
from ..writers.atomic import atomic_path
from .averaged_weights import AveragedWeights
from .batches import AugmentedOnDevice, image_and_label, images_in
from .distributed import add_up, average, average_buffers, barrier, is_distributed, num_processes, rank, sum_of_means
from .folder_lock import FolderLock
from .inferers import AutocastInferer
from .stage import WEIGHTS, Stage
from .stage_settings import Steps, TrainingDevice, Weights

# Not the engine's own: Ignite's loggers are silenced in the bundles' logging.conf.
logger = logging.getLogger(__name__)

# They are frozen: every stage may have the same.
DEFAULT_STEPS, DEFAULT_WEIGHTS = Steps(), Weights()


class StageTrainer(Stage, SupervisedTrainer):
    """A SupervisedTrainer with a folder, run once: after an interruption a new object resumes from the folder.

    After every epoch the folder holds a resume point (network, its average, optimizer, scaler, epoch, history) and
    ``history.csv``; when the last epoch is done, ``model.pt`` (the network's state dict) replaces the resume point. `run`
    continues from the resume point, and only loads the weights where ``model.pt`` is there already. Random numbers of an epoch
    depend on `seed` and the epoch, so a resumed training ends with the weights of an uninterrupted one.

    Where inferer or targets are dictionaries, the loss takes what is in them by name.

    Args:
        output_dir: folder of the run.
        name: of the stage and of its folder in `output_dir`.
        max_epochs: number of epochs; there are more where these make fewer steps than `steps` wants.
        train_data_loader: a `shared.data.RegionLoader` or a `shared.data.PairedLoader`.
        network: moved to the device in channels-last order; wrapped for gradient exchange when `torch.distributed` is in use.
        optimizer: of the network's parameters.
        loss_function: of what `inferer` returns and the targets.
        compute: device and precision of the training.
        inferer: of ``(inputs, network)``; default: the network itself.
        prepare_batch: see `shared.engines.batches`; default: `image_and_label`.
        steps: how the optimizer steps.
        weights: which the stage begins with, keeps and publishes.
        validator: a MONAI evaluator over a `shared.data.RegionLoader` to run after every epoch, or what makes one from the
            network; None for none.
        tracking: MLflow runs, of which the stage's child run gets metrics, history and weights; None for none.
        train_handlers: more Ignite handlers, in addition to those of `shared.handlers.training_handlers`.
        seed: of the epochs' random numbers.

    Raises:
        ValueError: if the optimizer's parameters are not the network's.
    """

    def __init__(
        self,
        output_dir: str | Path,
        name: str,
        max_epochs: int,
        train_data_loader: Any,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable[..., Tensor],
        compute: TrainingDevice,
        inferer: Inferer | None = None,
        prepare_batch: Callable[..., Any] | None = None,
        steps: Steps = DEFAULT_STEPS,
        weights: Weights = DEFAULT_WEIGHTS,
        validator: Any = None,
        tracking: Tracking | None = None,
        train_handlers: Sequence[Any] | None = None,
        seed: int = 0,
    ) -> None:
        device = compute.torch_device
        self.plain_network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.folder, self.steps, self.weights, self.seed = Path(output_dir) / name, steps, weights, seed
        self.publish_to = self.folder.parent / WEIGHTS if weights.publish else None
        _check_parameters(optimizer, network, name)
        self.average = None if weights.ema_decay is None else AveragedWeights(self.plain_network, weights.ema_decay)
        self.given_epochs = max_epochs
        prepare_batch = prepare_batch or image_and_label
        if device.type != "cpu":
            # A device samples a batch in the time in which a worker reads an image.
            train_data_loader.defer_augmentation()
            prepare_batch = AugmentedOnDevice(prepare_batch)
        super().__init__(
            device=device,
            max_epochs=steps.epochs(max_epochs, len(train_data_loader)),
            train_data_loader=train_data_loader,
            network=_wrap(self.plain_network, device),
            optimizer=optimizer,
            loss_function=StageLoss(self, loss_function, device),
            accumulation_steps=len(train_data_loader) if steps.batch == "full" else 1,
            prepare_batch=prepare_batch,
            inferer=AutocastInferer(inferer or SimpleInferer(), "cpu", torch.bfloat16) if compute.autocasts_cpu else inferer,
            amp=compute.amp_kwargs is not None,
            amp_kwargs=compute.amp_kwargs,
            non_blocking=True,
            decollate=False,
            optim_set_to_none=True,
        )
        is_ready = validator is None or isinstance(validator, Evaluator)
        self.validator = validator if is_ready else validator(network=self.plain_network)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {}
        self._losses: list[Tensor] = []
        self._scaler_state: dict[str, Any] | None = None
        self._has_said_nan = False
        self.register_events(*StageEvents)
        # These come first: handlers that are attached later see the seeded epoch and its mean loss.
        self.add_event_handler(Events.STARTED, _restore_scaler)
        self.add_event_handler(Events.EPOCH_STARTED, _start_epoch)
        self.add_event_handler(Events.ITERATION_STARTED, _set_learning_rate)
        if steps.max_gradient_norm is not None:
            self.add_event_handler(IterationEvents.BACKWARD_COMPLETED, _clip_gradients, steps.max_gradient_norm)
        self.add_event_handler(Events.ITERATION_COMPLETED, _note_loss)
        if self.average is not None:
            self.add_event_handler(Events.ITERATION_COMPLETED(every=self.accumulation_steps), _take_into_average)
        self.add_event_handler(Events.EPOCH_COMPLETED, _end_epoch)
        self._register_handlers([*training_handlers(name, tracking, self.validator), *(train_handlers or [])])
        # The last: the resume point holds what the validation of this epoch said.
        self.add_event_handler(Events.EPOCH_COMPLETED, _save_epoch)

    def trained(self) -> nn.Module:
        """The network with the weights of the finished stage, in eval mode.

        Raises:
            ValueError: if the stage has not finished.
        """
        return self.with_final_weights(self.plain_network)

    def run(self) -> None:  # type: ignore[override]
        """Train from the state of the folder to the end; leave the final weights in the network and in ``model.pt``.

        Raises:
            ValueError: if the resume point is of another network, the loss stops being finite, or another process trains this
                stage.
        """
        # A stage may be run alone, without its run's folder being opened.
        with FolderLock(self.folder):
            if self.is_finished:
                self.log_finished()
            else:
                self._restore()
                if self.state.epoch < self.state.max_epochs:
                    self._log_epochs()
                    self._run_with_workers()
                if rank() == 0:
                    mean = self.average.mean if self.average is not None else None
                    self.save_weights(self.best.get("network") or mean or self.plain_network.state_dict())
            if rank() == 0:
                self.close()
            barrier()
        self.trained()

    def _log_epochs(self) -> None:
        if self.state.max_epochs > self.given_epochs and rank() == 0:
            logger.info(
                f"{self.folder.name}: {self.given_epochs} epochs would be fewer than {self.steps.min_steps} steps (min_steps), "
                f"so {self.state.max_epochs} epochs are run"
            )

    def _run_with_workers(self) -> None:
        loaders: list[Any] = [self.data_loader, *([self.validator.data_loader] if self.validator is not None else [])]
        self.data_loader.set_epoch(self.state.epoch)  # type: ignore[union-attr]
        try:
            # While the process is small: see `RegionLoader.start`.
            for loader in loaders:
                loader.start()
            super().run()
        finally:
            for loader in loaders:
                loader.close()

    def _inputs(self) -> Iterator[Tensor]:
        """The inputs of the network in the first epoch, batch by batch."""
        self.data_loader.set_epoch(0)  # type: ignore[union-attr]
        for batch in self.data_loader:
            yield from images_in(self.prepare_batch(batch, self.state.device, True)[0])

    def _restore(self) -> None:
        point = self.resume_point
        if not point.is_file():
            if self.weights.initial is not None:
                load_initial_weights(self.plain_network, self.weights.initial)
            elif isinstance(self.plain_network, EncodedNetwork):
                self.plain_network.standardise(self._inputs(), add_up)
            return
        saved = torch.load(point, map_location=self.state.device, weights_only=True)
        try:
            self.plain_network.load_state_dict(saved["network"])
        except RuntimeError as error:
            raise ValueError(f"{point} belongs to another network: choose another output_dir or delete it. {error}") from error
        self.optimizer.load_state_dict(saved["optimizer"])
        self._scaler_state = saved["scaler"]
        self.history, self.best = saved["history"], saved["best"]
        if self.average is not None:
            if saved.get("average") is None:
                raise ValueError(
                    f"{point} belongs to a training without averaged weights (ema_decay): choose another output_dir, delete "
                    "it, or give ema_decay null"
                )
            self.average.load_state_dict(saved["average"])
        self.load_state_dict(
            {"epoch": saved["epoch"], "max_epochs": self.state.max_epochs, "epoch_length": self.state.epoch_length}
        )
        logger.info(f"{self.folder.name}: resumes after epoch {saved['epoch']} of {self.state.max_epochs}")


def _wrap(network: nn.Module, device: torch.device) -> nn.Module:
    if not is_distributed():
        return network
    # Running statistics differ between processes within an epoch, as with one process per GPU, and are averaged at its end.
    return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None, broadcast_buffers=False)


class StageLoss:
    """A stage's loss, given by name what inferer and targets name.

    With full batches a batch weighs by its images, so that the mean over an epoch's batches is the mean over its images.

    Of several processes, whose gradients are averaged, each weighs by its share of the step, so that the average is the
    gradient of one process that has all of the step's images. The share is that of the images, of which most losses are the
    mean; a loss that is a mean over something else, or a sum of such means, has a method ``terms`` in addition to its call,
    which gives each of them as a sum and what it is to be divided by.
    """

    def __init__(self, engine: StageTrainer, function: Callable[..., Tensor], device: torch.device) -> None:
        self.engine, self.function = engine, function
        if isinstance(function, nn.Module):
            # Class weights would otherwise be copied there in every step.
            function.to(device)

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        named = {name: value for given in (outputs, targets) if isinstance(given, dict) for name, value in given.items()}
        unnamed = [given for given in (outputs, targets) if not isinstance(given, dict)]
        batch, is_full = self.engine.state.batch, self.engine.steps.batch == "full"
        terms = getattr(self.function, "terms", None)
        if num_processes() > 1 and terms is not None and not is_full:
            return sum_of_means(terms(*unnamed, **named))
        loss = self.function(*unnamed, **named)
        if is_full:
            loader = self.engine.data_loader
            mean_images = loader.num_samples / (len(loader) * num_processes())  # type: ignore[union-attr, arg-type]
            return loss * (len(batch["label"]) / mean_images)
        if num_processes() == 1:
            return loss
        count = loss.detach().new_full((), _num_images(batch))
        return sum_of_means([(loss * count, count)])


def _num_images(batch: Any) -> int:
    sizes = {len(values) for values in batch.values() if isinstance(values, Tensor)} if isinstance(batch, dict) else set()
    if len(sizes) != 1:
        raise ValueError(
            "several processes are weighted by the images in their batches: expected a dictionary of tensors with one entry "
            "per image, or a loss with a method 'terms', found "
            f"{sorted(batch) if isinstance(batch, dict) else type(batch).__name__}"
        )
    return sizes.pop()


def _check_parameters(optimizer: Optimizer, network: nn.Module, stage: str) -> None:
    known = {id(parameter) for parameter in network.parameters()}
    foreign = sum(id(parameter) not in known for group in optimizer.param_groups for parameter in group["params"])
    if foreign:
        raise ValueError(
            f"{stage}: {foreign} parameters of its optimizer do not belong to its {type(network).__name__}, which would not "
            "learn: give the optimizer the parameters of the stage's own network"
        )


def _clip_gradients(engine: StageTrainer, max_norm: float) -> None:
    if engine.state.iteration % engine.accumulation_steps:
        return
    if engine.scaler is not None:
        engine.scaler.unscale_(engine.optimizer)
    nn.utils.clip_grad_norm_(engine.plain_network.parameters(), max_norm)


def _restore_scaler(engine: StageTrainer) -> None:
    # Not before: MONAI makes the scaler when a run begins.
    if engine.scaler is not None and engine._scaler_state is not None:
        engine.scaler.load_state_dict(engine._scaler_state)


def _start_epoch(engine: StageTrainer) -> None:
    epoch = engine.state.epoch - 1
    torch.manual_seed(epoch_seed(engine.seed, epoch, rank()))
    engine.data_loader.set_epoch(epoch)  # type: ignore[union-attr]
    engine._losses = []


def epoch_seed(seed: int, epoch: int, process: int = 0) -> int:
    """The seed of dropout and of the augmentation of tiles on the device, different in each process of a training."""
    first = seed * 1_000_003 + epoch
    return first if process == 0 else int(np.random.SeedSequence((seed, epoch, process)).generate_state(1, np.uint64)[0] >> 1)


def _set_learning_rate(engine: StageTrainer) -> None:
    # From the step's number alone, so that there is no state to resume.
    progress = (engine.state.iteration - 1) / (engine.state.max_epochs * engine.state.epoch_length)
    for group, rate in zip(engine.optimizer.param_groups, engine._rates, strict=True):
        group["lr"] = rate * (1 - progress * (1 - engine.steps.final_lr_share))


def _note_loss(engine: StageTrainer) -> None:
    # Kept on the device: reading it would wait for the GPU at every step.
    engine._losses.append(engine.state.output["loss"].detach())


def _take_into_average(engine: StageTrainer) -> None:
    engine.average.update()  # type: ignore[union-attr]


def _end_epoch(engine: StageTrainer) -> None:
    average_buffers(engine.plain_network)
    if engine.average is not None:
        # Until the epoch is saved the network has its averaged weights: they are validated, and kept.
        engine.average.swap()
        average_buffers(engine.plain_network)
    loss = float(average(torch.stack(engine._losses).mean()))
    if not math.isfinite(loss):
        raise ValueError(
            f"{engine.folder.name}: the loss of epoch {engine.state.epoch} is {loss}; the last good state is in "
            f"{engine.resume_point}. Lower the learning rate or use amp_dtype: bfloat16."
        )
    engine.state.metrics["train_loss"] = loss


def _save_epoch(engine: StageTrainer) -> None:
    validation = dict(engine.validator.state.metrics) if engine.validator is not None else {}
    metrics = {**engine.state.metrics, **validation}
    engine.history.append({"epoch": float(engine.state.epoch), **{name: float(value) for name, value in metrics.items()}})
    if engine.weights.keep_best is not None:
        _keep_best(engine, engine.weights.keep_best, validation)
    if engine.average is not None:
        engine.average.swap()
    if rank() != 0:
        return
    # Before the resume point: it may lead a resume point by an epoch, which is then run again, but never lag behind.
    with atomic_path(engine.history_file) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in engine.history for name in row)))
        writer.writeheader()
        writer.writerows(engine.history)
    with atomic_path(engine.resume_point) as temporary:
        torch.save(
            {
                "epoch": engine.state.epoch,
                "network": engine.plain_network.state_dict(),
                "optimizer": engine.optimizer.state_dict(),
                "scaler": engine.scaler.state_dict() if engine.scaler is not None else None,
                "average": engine.average.state_dict() if engine.average is not None else None,
                "history": engine.history,
                "best": engine.best,
            },
            temporary,
        )


def _keep_best(engine: StageTrainer, metric: str, validation: dict[str, Any]) -> None:
    if metric not in validation:
        raise ValueError(f"keep_best is {metric!r}, but the validation metrics are {', '.join(sorted(validation)) or 'nothing'}")
    score = float(validation[metric])
    if math.isnan(score) and not engine._has_said_nan and rank() == 0:
        engine._has_said_nan = True
        logger.warning(
            f"{engine.folder.name}: {metric}, by which keep_best chooses the epoch, is NaN, for instance because the "
            "validation images lack a class: the last epoch is kept, unless the metric is a number in another epoch"
        )
    # No number is larger than NaN. Of epochs that are equally good the last has learned longest.
    if not engine.best or score >= engine.best["score"] or math.isnan(engine.best["score"]):
        network = {name: values.clone() for name, values in engine.plain_network.state_dict().items()}
        engine.best = {"score": score, "epoch": engine.state.epoch, "network": network}
