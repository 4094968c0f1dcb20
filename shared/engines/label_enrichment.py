"""CAMEL's label enrichment: which instances of the training images get a label, and which (CAMEL, section 3.1)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.image_dataset import RegionDataset
from ..data.labels.enriched_labels import write_instance_labels, write_picks
from ..data.labels.lattice import instance_labels_of_masks, instance_region
from ..data.record import Record, part_of
from ..handlers.tracking import Tracking
from ..selection.criteria import criterion as criterion_of_name
from ..wsi.slide_pool import open_slide
from .distributed import barrier, over_dataset, rank, unwrap
from .inferers import LatticeInferer, fast_inferer

logger = logging.getLogger(__name__)


class LatticeScorer:
    """Scores every instance of every image of a data set, in its order, shared among the processes of a distributed run.

    Args:
        dataset: without augmentation.
        instances_per_side: N.
        device: to compute on.
        batch_size: images a forward pass.
        num_workers: processes that read.
        fast: score in bfloat16 where the device is faster at it, as training does.
    """

    def __init__(
        self,
        dataset: RegionDataset,
        instances_per_side: int,
        device: torch.device | str,
        batch_size: int = 8,
        num_workers: int = 0,
        fast: bool = False,
    ) -> None:
        self.dataset, self.device = dataset, torch.device(device)
        self.batch_size, self.num_workers = batch_size, num_workers
        self.instances_per_side = instances_per_side
        infer = LatticeInferer(instances_per_side)
        self.infer = fast_inferer(infer, device) if fast else infer

    def __call__(self, network: nn.Module, title: str = "scoring") -> Tensor:
        """Tumour logits ``(num_images, N * N)`` float32 on the CPU, of `network` in eval mode."""
        plain = unwrap(network).to(self.device)
        plain.eval()

        def of_batch(batch: dict[str, Any]) -> Tensor:
            return self.infer(batch["image"].to(self.device, non_blocking=True), plain).cpu()

        return torch.stack(over_dataset(self.dataset, of_batch, self.batch_size, self.num_workers, title))


class Construct:
    """The construct stage: each trained classifier picks an instance of every training image, by its own criterion.

    A pick whose predicted class differs from its image's label is dropped; the union of what is left, each instance once,
    is written as a manifest of labelled regions, ``picks.csv``.

    Args:
        score: how to score lattices, over the training images.
        classifiers: criterion name -> trained classifier.
        path: of the manifest to write; the name of its folder is the stage's.
        tracking: MLflow runs, of which the stage's child run gets the counts and the manifest; None for none.
    """

    def __init__(
        self,
        score: LatticeScorer,
        classifiers: Mapping[str, nn.Module],
        path: str | Path,
        tracking: Tracking | None = None,
    ) -> None:
        self.score, self.classifiers, self.path, self.tracking = score, classifiers, Path(path), tracking

    def run(self) -> None:
        """Write the picks, unless they are there already.

        Raises:
            ValueError: if no pick of one of the classes is left.
        """
        if self.path.is_file():
            logger.info(f"construct: already finished, using its picks from {self.path}")
            _track(self.tracking, self.path)
            return
        _begin(self.tracking, self.path)
        records = self.score.dataset.data
        picks: dict[tuple[int, int], Record] = {}
        for name, classifier in self.classifiers.items():
            logits = self.score(classifier, title=f"construct ({name})")
            for image, instance in consistent_picks(logits, records, name):
                pick = pick_record(records[image], instance, self.score.instances_per_side)
                pick["criterion"], pick["probability"] = name, round(float(logits[image, instance].sigmoid()), 6)
                first = picks.setdefault((image, instance), pick)
                if first is not pick:
                    first["criterion"] += f"+{name}"
        ordered = [picks[key] for key in sorted(picks)]
        counts = [sum(pick["label"] == label for pick in ordered) for label in (0, 1)]
        logger.info(f"construct: {len(ordered)} picks of {len(records)} images: {counts[1]} tumour, {counts[0]} normal")
        if not all(counts):
            raise ValueError(
                f"construct: {counts[1]} tumour and {counts[0]} normal picks agree with the label of their image; both kinds "
                "are needed. Train cMIL for more epochs (cmil::num_epochs), or change its norm or learning rate."
            )
        if rank() == 0:
            write_picks(ordered, self.path)
        _track(self.tracking, self.path, {"num_tumour_picks": counts[1], "num_normal_picks": counts[0]})
        barrier()


def consistent_picks(logits: Tensor, records: Sequence[Record], criterion: str) -> list[tuple[int, int]]:
    """(image, instance) of each pick whose predicted class is its image's label (logit of at least 0: tumour).

    Args:
        logits: ``(num_images, N * N)``.
        records: of the images, with ``label``.
        criterion: ``"max_max"`` or ``"max_min"``.
    """
    labels = torch.tensor([record["label"] for record in records])
    picked = criterion_of_name(criterion)(logits, labels)
    agrees = (logits.gather(1, picked[:, None])[:, 0] >= 0).long() == labels
    return [(int(image), int(picked[image])) for image in agrees.nonzero()[:, 0]]


def pick_record(record: Record, instance: int, instances_per_side: int) -> Record:
    """The manifest record of one instance of an image, with the image's label."""
    size_px = open_slide(record["image"], mpp=record.get("mpp")).size_px
    x, y, width, height = instance_region(record, size_px, instance, instances_per_side)
    return {**part_of(record), "label": record.get("label"), "x": x, "y": y, "width_px": width, "height_px": height}


class ConstructFromMasks:
    """The data of the fully supervised baseline FSB(m): every instance of every training image, with its true label.

    Args:
        dataset: training images with their masks (``pixel_labels: mask``).
        instances_per_side: N.
        path: of the manifest to write; the name of its folder is the stage's.
        tracking: see `Construct`.
    """

    def __init__(
        self, dataset: RegionDataset, instances_per_side: int, path: str | Path, tracking: Tracking | None = None
    ) -> None:
        self.dataset, self.instances_per_side, self.path, self.tracking = dataset, instances_per_side, Path(path), tracking

    def run(self) -> None:
        """Write all instances, unless they are there already.

        Raises:
            ValueError: if the masks give instances of one class only.
        """
        if self.path.is_file():
            logger.info(f"construct: already finished, using its instances from {self.path}")
            _track(self.tracking, self.path)
            return
        _begin(self.tracking, self.path)
        picks: list[Record] = []
        for index, record in enumerate(self.dataset.data):
            mask = self.dataset[index]["mask"][None]
            labels = instance_labels_of_masks(mask, self.instances_per_side)[0]
            for instance, label in enumerate(labels.tolist()):
                pick = pick_record(record, instance, self.instances_per_side)
                picks.append({**pick, "label": label, "criterion": "mask", "probability": None})
        counts = [sum(pick["label"] == label for pick in picks) for label in (0, 1)]
        if not all(counts):
            raise ValueError(
                f"construct: the masks of {len(self.dataset.data)} training images label {counts[1]} of {len(picks)} instances "
                f"tumour and {counts[0]} normal; both kinds are needed, so {self.path} was not written. Check the masks of "
                f"{self.dataset.data[0].get('manifest') or 'the manifest'}"
            )
        # Not before every process has seen that the file is missing: one that came later would find it and wait for no other
        # process.
        barrier()
        if rank() == 0:
            write_picks(picks, self.path)
        _track(self.tracking, self.path, {"num_tumour_picks": counts[1], "num_normal_picks": counts[0]})
        barrier()


class Relabel:
    """The relabel stage: the retrained classifier labels every instance of every training image.

    Args:
        score: how to score lattices, over the training images.
        classifier: the retrained one.
        path: of the CSV to write, see `shared.data.write_instance_labels`.
        clamp_negative_bags: label every instance of an image without tumour 0, which is known. Off as in the paper.
        tracking: see `Construct`.
    """

    def __init__(
        self,
        score: LatticeScorer,
        classifier: nn.Module,
        path: str | Path,
        clamp_negative_bags: bool = False,
        tracking: Tracking | None = None,
    ) -> None:
        self.score, self.classifier, self.path, self.tracking = score, classifier, Path(path), tracking
        self.clamp_negative_bags = clamp_negative_bags

    def run(self) -> None:
        """Write the instance labels, unless they are there already.

        Raises:
            ValueError: if all instances get the same label, from which a segmentation learns nothing.
        """
        if self.path.is_file():
            logger.info(f"relabel: already finished, using its labels from {self.path}")
            _track(self.tracking, self.path)
            return
        _begin(self.tracking, self.path)
        records = self.score.dataset.data
        labels = enriched_labels(self.score(self.classifier, title="relabel"), records, self.clamp_negative_bags)
        num_tumour = int(labels.sum())
        logger.info(f"relabel: {num_tumour} of {labels.numel()} instances are labelled tumour")
        if num_tumour in (0, labels.numel()):
            raise ValueError(
                f"relabel: {num_tumour} of {labels.numel()} instances of {len(records)} training images are labelled tumour; "
                f"both tumour and normal ones are needed, so {self.path} was not written: the segmentation would learn nothing. "
                "Retrain for more epochs (retrain::num_epochs), or change the classifier's norm or learning rate "
                "(cmil::lr), in another output_dir"
            )
        if rank() == 0:
            write_instance_labels(records, list(labels), self.path)
        _track(self.tracking, self.path, {"num_instances": labels.numel(), "num_tumour_instances": num_tumour})
        barrier()


def _begin(tracking: Tracking | None, path: Path) -> None:
    if tracking is not None:
        tracking.begin_stage(path.parent.name)


def _track(tracking: Tracking | None, path: Path, counts: Mapping[str, int] | None = None) -> None:
    """Log what a stage has made, once more where it had been made: the run may have been killed before it was logged."""
    if tracking is not None:
        stage = path.parent.name
        tracking.log_stage(stage, counts or {}, [path])
        tracking.finish_stage(stage)


def enriched_labels(logits: Tensor, records: Sequence[Record], clamp_negative_bags: bool = False) -> Tensor:
    """Instance labels ``(num_images, N * N)`` int64 from logits of that shape; see `Relabel`."""
    labels = (logits >= 0).long()
    if clamp_negative_bags:
        labels[[record["label"] == 0 for record in records]] = 0
    return labels
