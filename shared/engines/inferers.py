"""How networks run over lattices of instances, pairs of images and bags of tiles: MONAI inferers of trainers and evaluators."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from ..data.labels.lattice import check_lattice, gather_instances, split_into_instances
from ..networks.encoded.encoded_classifier import EncodedClassifier
from ..networks.precision import computes_bfloat16
from ..selection.criteria import criterion as criterion_of_name, max_max, max_min
from .distributed import unwrap

_LARGEST_FLOAT32_PX = 32


class LatticeInferer(Inferer):
    """Tumour logits of every instance of every image, without gradients: images ``(B, 3, M, M)`` to ``(B, N * N)``.

    Args:
        instances_per_side: N.
        chunk_size: instances a forward pass, so that memory depends on it alone; None for all at once.
    """

    def __init__(self, instances_per_side: int, chunk_size: int | None = 256) -> None:
        self.instances_per_side, self.chunk_size = instances_per_side, chunk_size

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        whole = encoded(inputs, network)
        plain = unwrap(network) if isinstance(network, nn.Module) else network
        if isinstance(plain, EncodedClassifier):
            return self._of_features(whole, plain)
        instances = split_into_instances(whole, self.instances_per_side)
        num_bags, num_instances = instances.shape[:2]
        # Instances are cut as (B, n, C, h, w); the convolutions want channels last.
        flat = instances.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        with _no_autocast_cache(flat.device.type):
            logits = [_forward(network, chunk) for chunk in flat.split(self.chunk_size or len(flat))]
        return torch.cat(logits).float().reshape(num_bags, num_instances)

    def _of_features(self, features: Tensor, classifier: EncodedClassifier) -> Tensor:
        height, width = features.shape[-2:]
        check_lattice(height, width, self.instances_per_side)
        with _no_autocast_cache(features.device.type), _float32_if_small(features, self.instances_per_side):
            return classifier.lattice_logits(features, self.instances_per_side).float()


class SelectedInstanceInferer(Inferer):
    """One cMIL training step (CAMEL, section 3.1.1) at the cost of scoring: only the picked instances are learned from.

    The instances are scored without gradients, in eval mode; the criterion picks one per image, and only the picks go through a
    second pass, in train mode, with gradients. The weights are the same in both.

    Deviation from the paper, which back-propagates through one pass over all instances in train mode: batch normalisation scores
    with its running statistics and learns with those of the picks. With ``norm: group`` or ``frozen`` there is no difference.
    `single_pass` does as the paper does.

    Args:
        criterion: ``"max_max"`` or ``"max_min"``.
        instances_per_side: N.
        chunk_size: see `LatticeInferer`.
        single_pass: score all instances in train mode, with gradients, and learn from the logits of the picks in the same pass;
            batch normalisation then has the statistics of all instances of the step. Takes the memory and the time of all.
    """

    def __init__(self, criterion: str, instances_per_side: int, chunk_size: int | None = 256, single_pass: bool = False) -> None:
        self.pick = criterion_of_name(criterion)
        self.score = LatticeInferer(instances_per_side, chunk_size)
        self.single_pass = single_pass

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """Logits of the picked instances ``(B,)`` from images ``(B, 3, M, M)``; ``labels`` ``(B,)`` come as a keyword."""
        inputs = encoded(inputs, network)
        if self.single_pass:
            logits = _forward(network, _all_instances(inputs, self.score.instances_per_side)).reshape(len(inputs), -1)
            return logits.gather(1, self.pick(logits.detach().float(), kwargs["labels"])[:, None])[:, 0]
        picks = self.pick(score_in_eval_mode(self.score, inputs, network), kwargs["labels"])
        picked = gather_instances(inputs, picks[:, None], self.score.instances_per_side)[:, 0]
        return _forward(network, picked.contiguous(memory_format=torch.channels_last))[:, 0]


class ConstrainedRetrainInferer(Inferer):
    """One step of the constrained retrain (CAMEL, section 3.3.2): instances and the picks of whole images in one pass.

    The images' instances are scored without gradients, with running statistics; the picks of both criteria join the labelled
    instances in one forward pass.

    Args:
        instances_per_side: N.
        chunk_size: see `LatticeInferer`.
        single_pass: all instances of the images join the labelled ones, in train mode, and the picks are made of this one pass.
    """

    def __init__(self, instances_per_side: int, chunk_size: int | None = 256, single_pass: bool = False) -> None:
        self.score = LatticeInferer(instances_per_side, chunk_size)
        self.single_pass = single_pass

    def __call__(self, inputs: Any, network: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """``instances (K, 3, m, m)``, ``images (B, 3, M, M)``, ``image_labels (B,)`` to logits ``(K,)`` and ``(B, 2)``."""
        instances, images = encoded(inputs["instances"], network), encoded(inputs["images"], network)
        labels, per_side = inputs["image_labels"], self.score.instances_per_side
        if self.single_pass:
            logits, of_images = _forward_both(network, instances, _all_instances(images, per_side))
            lattice = of_images.reshape(len(images), -1)
            return {"instance_logits": logits, "picked_logits": lattice.gather(1, _both_picks(lattice.detach().float(), labels))}
        picks = _both_picks(score_in_eval_mode(self.score, images, network), labels)
        logits, picked = _forward_both(network, instances, gather_instances(images, picks, per_side).flatten(0, 1))
        return {"instance_logits": logits, "picked_logits": picked.reshape(-1, 2)}


def _both_picks(logits: Tensor, labels: Tensor) -> Tensor:
    """``(B, 2)``: what Max-Max and what Max-Min picks."""
    return torch.stack([max_max(logits, labels), max_min(logits, labels)], dim=1)


def _all_instances(images: Tensor, instances_per_side: int) -> Tensor:
    """Of all images, one after the other, ``(B * N * N, C, h, w)``."""
    return split_into_instances(images, instances_per_side).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _forward_both(network: nn.Module, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of both in one pass: a network whose gradients are exchanged is called once a step."""
    # Under autocast in bfloat16 no float16 is joined, as stored features are.
    with torch.autocast(one.device.type, enabled=False):
        together = torch.cat([one, other]).contiguous(memory_format=torch.channels_last)
    logits = _forward(network, together)[:, 0]
    return logits[: len(one)], logits[len(one) :]


def encoded(images: Tensor, network: Callable[..., Any]) -> Tensor:
    """The maps from which instances are cut: the images, or the features of whole images from an `EncodedNetwork`."""
    encode = getattr(unwrap(network), "encode", None) if isinstance(network, nn.Module) else None
    return images if encode is None else encode(images)


def score_in_eval_mode(score: LatticeInferer, images: Tensor, network: nn.Module) -> Tensor:
    """Logits ``(B, N * N)`` with running statistics, without gradient exchange; the network is left in train mode."""
    plain = unwrap(network)
    plain.eval()
    try:
        return score(images, plain)
    finally:
        network.train()


class ScoreMapInferer(Inferer):
    """Image scores and score maps of a network that is trained by the former, such as `shared.networks.Wildcat`.

    Images ``(B, 3, H, W)`` to ``image_scores (B, C)`` and ``maps (B, C, H, W)``; the network is in eval mode.
    """

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return {"image_scores": network.image_scores(inputs), "maps": network(inputs)}


class JointInferer(Inferer):
    """Pass both kinds of images through a `shared.networks.SegClsResNet18` in one call, as gradient exchange requires."""

    def __call__(  # type: ignore[override]
        self, inputs: dict[str, Tensor], network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Pass the batch of `masked_and_labelled` to the network and return its dictionary."""
        logits = network(**inputs)
        return {"pixel_logits": logits} if isinstance(logits, Tensor) else logits


class BagInferer(Inferer):
    """Logits of every tile of every bag: ``(B, n, 3, H, W)`` to ``(B, n)``, of a dense network to ``(B, n * h * w)``.

    The tiles of all bags go through the network together, so that batch normalisation in train mode takes its statistics from
    them: of one slide in the paper, of several where a step holds several.

    Args:
        per_tile: of a dense network, one logit per tile, the mean of its map: ``(B, n)``.
        chunk_size: tiles a forward pass, for scoring with little memory; None for all at once, which training needs.
    """

    def __init__(self, per_tile: bool = False, chunk_size: int | None = None) -> None:
        self.per_tile, self.chunk_size = per_tile, chunk_size

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        num_bags, num_tiles = inputs.shape[:2]
        flat = inputs.flatten(0, 1)
        logits = torch.cat([network(chunk) for chunk in flat.split(self.chunk_size or len(flat))]).float()
        if self.per_tile:
            return logits.flatten(1).mean(dim=1).reshape(num_bags, num_tiles)
        return logits.reshape(num_bags, -1)


class AutocastInferer(Inferer):
    """Another inferer under autocast, with its logits as float32 again: what MONAI's trainer does on CUDA only.

    On a CPU images and instances of 32 px and less are computed in float32 all the same.

    Args:
        inferer: the one that runs the network.
        device_type: ``"cpu"`` or ``"cuda"``.
        dtype: to compute in.
    """

    def __init__(self, inferer: Inferer, device_type: str, dtype: torch.dtype) -> None:
        self.inferer, self.device_type, self.dtype = inferer, device_type, dtype

    def __call__(self, inputs: Any, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.device_type, dtype=self.dtype, enabled=not _is_too_small(inputs)):
            outputs = self.inferer(inputs, network, *args, **kwargs)
        return _as_float32(outputs)


def _is_too_small(images: Any, parts_per_side: int = 1) -> bool:
    # A ResNet makes maps of one pixel from them, and the gradient that torch 2.13 gives on AMX CPUs for a strided convolution
    # of one pixel in bfloat16 holds memory that was never written: another in every run.
    if not isinstance(images, Tensor) or images.device.type != "cpu":
        return False
    return min(images.shape[-2:]) // parts_per_side <= _LARGEST_FLOAT32_PX


def _forward(network: Callable[..., Any], instances: Tensor) -> Tensor:
    """Logits of instances ``(n, 3, h, w)``; in float32 where they are too small for bfloat16, whatever autocast says."""
    with _float32_if_small(instances):
        return network(instances)


def _float32_if_small(images: Tensor, parts_per_side: int = 1) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", enabled=False) if _is_too_small(images, parts_per_side) else nullcontext()


def _as_float32(outputs: Any) -> Any:
    """The same tensor, dictionary or tuple of tensors in float32; what is None stays so."""
    if isinstance(outputs, dict):
        return {name: _as_float32(values) for name, values in outputs.items()}
    if isinstance(outputs, tuple):
        return tuple(_as_float32(values) for values in outputs)
    return None if outputs is None else outputs.float()


def fast_inferer(inferer: Inferer, device: torch.device | str) -> Inferer:
    """The inferer in bfloat16 where the device is faster at it, else as it is."""
    device = torch.device(device)
    return AutocastInferer(inferer, device.type, torch.bfloat16) if computes_bfloat16(device) else inferer


def _no_autocast_cache(device_type: str) -> AbstractContextManager[Any]:
    # Autocast keeps its casts of the weights until it ends. Those of a pass without gradients have none, and a later pass that
    # found them would learn nothing.
    if not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type, dtype=torch.get_autocast_dtype(device_type), cache_enabled=False)
