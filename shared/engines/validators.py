"""Validation during training: MONAI evaluators for lattices of instances and for pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.engine import Events
from ignite.metrics import Metric
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from ..data.bag_dataset import SlideBagDataset
from ..data.image_dataset import RegionDataset
from ..data.labels.lattice import instance_labels_of_masks
from ..data.loaders import RegionLoader
from ..losses.power_mean import log_generalized_mean
from ..metrics.bag_ranking import BagRanking
from ..metrics.binary import PooledBinaryScores
from ..metrics.classes import PooledClassScores
from ..metrics.pooled_ranking import PixelRanking, ScoreRanking
from ..metrics.region import MeanRegionF
from ..networks.probabilities import tumour_probability
from .batches import SlideBags, image_and_mask
from .distributed import num_processes
from .inferers import BagInferer, LatticeInferer, ScoreMapInferer, fast_inferer


def lattice_validator(
    dataset: RegionDataset,
    network: nn.Module,
    instances_per_side: int,
    device: torch.device | str,
    batch_size: int = 8,
    num_workers: int = 0,
) -> SupervisedEvaluator:
    """Scores a classifier of instances on whole images.

    Metrics: ``val_image_auc``, ``val_image_accuracy`` and its like, of the image's label against its highest instance; and,
    where the data set has masks, ``val_instance_auc``, ``val_instance_accuracy`` and its like, of every instance against the
    mask. The latter do not influence training; they show a selection that has found a short-cut, which the image's label cannot
    (METHODS: Max-Min).

    Args:
        dataset: validation images; with ``pixel_labels: mask`` if they have masks.
        network: the stage's classifier.
        instances_per_side: N.
        device: of the network.
        batch_size: images per step over all processes.
        num_workers: processes that read.
    """

    def instances(output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return output["pred"], instance_labels_of_masks(output["label"]["mask"], instances_per_side)

    metrics: dict[str, Metric] = {
        "val_image_accuracy": PooledBinaryScores(threshold=0.0, output_transform=_image_logit_and_label),
        "val_image_auc": ScoreRanking(_image_logit_and_label),
    }
    if dataset.pixel_labels == "mask":
        metrics["val_instance_accuracy"] = PooledBinaryScores(threshold=0.0, output_transform=instances)
        metrics["val_instance_auc"] = ScoreRanking(instances)
    return _evaluator(
        _loader(dataset, batch_size, num_workers),
        network,
        device,
        fast_inferer(LatticeInferer(instances_per_side), device),
        _image_and_targets,
        metrics,
    )


def pixel_validator(
    dataset: RegionDataset,
    network: nn.Module,
    device: torch.device | str,
    batch_size: int = 4,
    num_workers: int = 0,
    generalized_mean_r: float = 4.0,
) -> SupervisedEvaluator | None:
    """Scores a segmentation network on whole images.

    Metrics: ``val_pixel_auc``, ``val_pixel_iou`` and its like, against the data set's pixel labels; ``val_image_auc``,
    ``val_image_accuracy`` and its like, of the images' labels against the generalised mean of their pixels' probabilities, whose
    r is `generalized_mean_r`. Either only where all images have such labels; None where they have neither: there is nothing to
    score then.
    """
    metrics = _map_metrics(dataset, lambda output: tumour_probability(output["pred"]), generalized_mean_r)
    return _map_validator(dataset, network, device, batch_size, num_workers, metrics)


def class_validator(
    dataset: RegionDataset, network: nn.Module, device: torch.device | str, batch_size: int = 20, num_workers: int = 0
) -> SupervisedEvaluator | None:
    """Scores a segmentation into several classes on whole images: ``val_pixel_bach_score`` and the like of `class_scores`.

    None for a data set without pixel labels: there is nothing to score then.
    """
    if dataset.pixel_labels is None:
        return None
    metric = PooledClassScores(dataset.num_classes, output_transform=lambda output: (output["pred"], output["label"]))
    loader = _loader(dataset, batch_size, num_workers)
    inferer = fast_inferer(SimpleInferer(), device)
    return _evaluator(loader, network, device, inferer, image_and_mask, {"val_pixel_bach_score": metric})


def _map_metrics(dataset: RegionDataset, probabilities: Callable[[dict[str, Any]], Tensor], r: float) -> dict[str, Metric]:
    """The scores that exist for maps ``(B, H, W)``, by the labels that all images of a data set have."""

    def images(output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        maps = probabilities(output)
        log_maps = maps.clamp_min(torch.finfo(maps.dtype).tiny).log()
        return log_generalized_mean(log_maps, r).exp(), output["label"]["image"]

    def pixels(output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return probabilities(output), output["label"]["mask"][:, 0]

    metrics: dict[str, Metric] = {}
    if dataset.pixel_labels is not None:
        metrics |= {"val_pixel_iou": PooledBinaryScores(output_transform=pixels), "val_pixel_auc": PixelRanking(pixels)}
    if all(record.get("label") is not None for record in dataset.data):
        metrics |= {"val_image_accuracy": PooledBinaryScores(output_transform=images), "val_image_auc": ScoreRanking(images)}
    return metrics


def _map_validator(
    dataset: RegionDataset,
    network: nn.Module,
    device: torch.device | str,
    batch_size: int,
    num_workers: int,
    metrics: dict[str, Metric],
) -> SupervisedEvaluator | None:
    if not metrics:
        return None
    loader = _loader(dataset, batch_size, num_workers)
    return _evaluator(loader, network, device, fast_inferer(SimpleInferer(), device), _image_and_targets, metrics)


def region_validator(
    dataset: RegionDataset,
    network: nn.Module,
    device: torch.device | str,
    batch_size: int = 4,
    num_workers: int = 0,
    generalized_mean_r: float = 4.0,
) -> SupervisedEvaluator | None:
    """Scores maps of probabilities ``(B, 1, H, W)`` on whole images: ``val_region_f`` and what `pixel_validator` gives.

    Super-pixels, where the data set has them, are not pooled: the maps are scored pixel by pixel.
    """
    metrics = _map_metrics(dataset, lambda output: output["pred"][:, 0], generalized_mean_r)
    if dataset.pixel_labels is not None:
        region_f = MeanRegionF(output_transform=lambda output: (output["pred"], *_mask_and_label(output["label"])))
        metrics = {"val_region_f": region_f, **metrics}
    return _map_validator(dataset, network, device, batch_size, num_workers, metrics)


def score_map_validator(
    dataset: RegionDataset, network: nn.Module, device: torch.device | str, batch_size: int = 4, num_workers: int = 0
) -> SupervisedEvaluator:
    """Scores a network that is trained by its image scores, such as `shared.networks.Wildcat`, on whole images.

    Metrics: ``val_image_auc``, ``val_image_accuracy`` and its like, of the images' labels; where the data set has pixel labels
    also ``val_pixel_auc``, ``val_pixel_iou`` and its like, of the maps, which do not influence training.
    """

    def images(output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return tumour_probability(output["pred"]["image_scores"])[:, 0, 0], output["label"]["image"]

    def pixels(output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return tumour_probability(output["pred"]["maps"]), output["label"]["mask"][:, 0]

    metrics: dict[str, Metric] = {
        "val_image_accuracy": PooledBinaryScores(output_transform=images),
        "val_image_auc": ScoreRanking(images),
    }
    if dataset.pixel_labels is not None:
        metrics |= {"val_pixel_iou": PooledBinaryScores(output_transform=pixels), "val_pixel_auc": PixelRanking(pixels)}
    loader = _loader(dataset, batch_size, num_workers)
    return _evaluator(loader, network, device, fast_inferer(ScoreMapInferer(), device), _image_and_targets, metrics)


def bag_validator(
    dataset: SlideBagDataset, network: nn.Module, alpha: float, device: torch.device | str, num_workers: int = 0
) -> SupervisedEvaluator:
    """Ranks validation slides, and their tiles, by a tile classifier: ``val_slide_auc`` and its like, see `bag_scores`.

    The bags are the same after every epoch. ``val_tile_auc`` needs a data set ``with_shares`` and does not influence training.

    Args:
        dataset: validation slides.
        network: the stage's classifier.
        alpha: share of a tumour slide's tiles that are taken for tumour.
        device: of the network.
        num_workers: processes that read.
    """
    metric = BagRanking(alpha, output_transform=lambda output: (output["pred"], *output["label"]))
    loader = _loader(dataset, num_processes(), num_workers)
    inferer = fast_inferer(BagInferer(per_tile=True), device)
    return _evaluator(loader, network, device, inferer, _bags_and_truth, {"val_slide_auc": metric})


def slide_validator(
    dataset: SlideBagDataset, network: nn.Module, device: torch.device | str, num_workers: int = 0
) -> SupervisedEvaluator:
    """Ranks validation slides by a network that is trained on bags, such as `shared.networks.AttentionMIL`.

    Metrics: ``val_slide_auc``, ``val_slide_accuracy`` and its like, of the slides' logits; of a data set ``with_shares`` also
    ``val_tile_auc``, of its map's logits, which does not influence training.

    Args:
        dataset: validation slides.
        network: the stage's network.
        device: of the network.
        num_workers: processes that read.
    """

    def slides(output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return output["pred"]["slide_logits"], output["label"][0]

    def tiles(output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return output["pred"]["map_logits"].flatten(), (output["label"][1] >= 0.5).long().flatten()

    metrics: dict[str, Metric] = {
        "val_slide_auc": ScoreRanking(slides),
        "val_slide_accuracy": PooledBinaryScores(threshold=0.0, output_transform=slides),
    }
    if dataset.with_shares:
        metrics["val_tile_auc"] = ScoreRanking(tiles)
    loader = _loader(dataset, num_processes(), num_workers)
    return _evaluator(loader, network, device, fast_inferer(SimpleInferer(), device), _bags_and_truth, metrics)


class SharedEvaluator(SupervisedEvaluator):
    """An evaluator that joins in the metrics of all processes also where it has no image of its own, as the last of five has
    where there are four."""

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Evaluate, see MONAI's `Evaluator`."""
        if len(self.data_loader):  # type: ignore[arg-type]
            super().run(global_epoch)
            return
        self.state.epoch = global_epoch
        # Metrics forget at the second what they knew, and are computed, by all processes together, at the third.
        for event in (Events.STARTED, Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED):
            self.fire_event(event)


def _loader(dataset: RegionDataset | SlideBagDataset, batch_size: int, num_workers: int) -> RegionLoader:
    return RegionLoader(dataset, batch_size, shuffle=False, num_workers=num_workers, may_idle=True)


def _evaluator(
    loader: RegionLoader,
    network: nn.Module,
    device: torch.device | str,
    inferer: Any,
    prepare_batch: Callable[..., Any],
    metrics: Mapping[str, Metric],
) -> SupervisedEvaluator:
    names = list(metrics)
    return SharedEvaluator(
        device=torch.device(device),
        val_data_loader=loader,
        network=network,
        inferer=inferer,
        prepare_batch=prepare_batch,
        key_val_metric={names[0]: metrics[names[0]]},
        additional_metrics={name: metrics[name] for name in names[1:]},
        decollate=False,
    )


def _image_logit_and_label(output: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return output["pred"].amax(dim=1), output["label"]["image"]


def _mask_and_label(targets: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return targets["mask"], targets["image"]


def _image_and_targets(
    batch: dict[str, Any], device: Any = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Images, and what there is to compare with: the images' labels, 1 for every one above 0, and their masks, where read."""
    images = batch["image"].to(device, non_blocking=non_blocking).contiguous(memory_format=torch.channels_last)
    labels = {"image": (batch["label"] > 0).float().to(device, non_blocking=non_blocking)} if "label" in batch else {}
    masks = {"mask": batch["mask"].to(device, non_blocking=non_blocking)} if "mask" in batch else {}
    return images, labels | masks


def _bags_and_truth(
    batch: dict[str, Any], device: Any = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
    """Tiles, and what there is to compare with: the slides' labels and, where read, the tiles' shares of tumour."""
    tiles, labels = SlideBags()(batch, device, non_blocking)
    return tiles, (labels, batch.get("tumour_share"))
