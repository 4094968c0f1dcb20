"""Weak supervision of every side output and of their fusion, with a constraint on the cancer area."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cancer_area import area_constraint
from .power_mean import image_cross_entropy, log_generalized_mean
from .superpixels import at_places, superpixel_means

__all__ = ["DeepWeakSupervisionLoss", "deep_weak_supervision_loss"]


def deep_weak_supervision_loss(
    side_logits: Tensor,
    fusion_probabilities: Tensor | None,
    labels: Tensor,
    areas: Tensor | None = None,
    superpixels: Tensor | None = None,
    etas: Sequence[float] = (2.5, 5, 10),
    eta_fuse: float = 10,
    r: float = 4,
    area_weighted_superpixels: bool = False,
    num_superpixels: int | None = None,
) -> Tensor:
    """``sum_t (mil_t + etas[t] * ac_t) + mil_fuse + eta_fuse * ac_fuse`` over side outputs and fusion.

    mil is the cross entropy of the generalised mean (`generalized_mean_loss`), ac is the `area_constraint`. The instances of
    both are the pixels, or the super-pixels: a super-pixel's probability is the mean of its pixels' probabilities.

    Where only probabilities are known, of the fusion and of super-pixels, float32 ends at 1e-38: lower ones count as that. A
    fusion that rounds to 1 everywhere in an image of label 0 costs 87 without a gradient; the side outputs keep theirs.

    Args:
        side_logits: tumour logits of the T side outputs on a common grid, ``(B, T, H, W)``.
        fusion_probabilities: their fusion, in [0, 1], ``(B, 1, H, W)``, or None: then the sum has no fusion terms.
        labels: image labels 0 or 1, ``(B,)``, bool, integer or float.
        areas: cancer's share of the image, in [0, 1], ``(B,)``, NaN allowed for label 0. May be None if the constraint has
            weight 0 everywhere.
        superpixels: id of each pixel's super-pixel, ``(B, 1, H, W)``, integer, >= 0, gaps allowed; None for pixels. They may be
            a whole number of times finer than the outputs: see `at_places`.
        etas: weight of the area constraint at each side output, ``T`` numbers >= 0.
        eta_fuse: the same at the fusion, >= 0; without effect if there is none.
        r: sharpness of the generalised mean, > 0.
        area_weighted_superpixels: weight super-pixels by their numbers of pixels; as the paper writes it they count alike.
        num_superpixels: see `superpixel_means`.

    Returns:
        scalar, float32 (float64 for float64 logits).

    Raises:
        ValueError: if a shape does not fit, `etas` are not one per side output or negative, areas are needed and missing, or
            labels, areas or super-pixel ids are out of range.

    Reference:
        Jia et al., IEEE TMI 2017, equations 4 to 12 and section III.C. Deviation: means over the images, where the paper sums,
        so that the learning rate does not depend on the batch size.

    >>> outputs = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.5)
    >>> deep_weak_supervision_loss(*outputs, torch.tensor([0, 1]), torch.tensor([0.0, 0.3]), etas=[0], eta_fuse=10)
    tensor(1.5863)
    """
    _check_outputs(side_logits, fusion_probabilities)
    _check_etas(etas, eta_fuse)
    if len(etas) != side_logits.shape[1]:
        raise ValueError(f"need one eta per side output: {side_logits.shape[1]}; got etas={tuple(etas)}")
    map_etas = [*etas] if fusion_probabilities is None else [*etas, eta_fuse]
    if areas is None and any(map_etas):
        raise ValueError(f"the area constraint needs areas unless every eta is 0; got none with {etas=}, {eta_fuse=}")
    precision = torch.promote_types(side_logits.dtype, torch.float32)
    with torch.autocast(side_logits.device.type, enabled=False):
        sides = side_logits.to(precision)
        fusion = None if fusion_probabilities is None else fusion_probabilities.to(precision)
        if superpixels is None:
            log_maps, weights = _log_of_pixels(sides, fusion), None
        else:
            log_maps, counts = _log_of_superpixels(sides, fusion, superpixels, num_superpixels)
            weights = (counts if area_weighted_superpixels else counts > 0).to(precision)
        total = sides.new_zeros(())
        for log_probabilities, eta in zip(log_maps, map_etas, strict=True):
            total = total + image_cross_entropy(log_generalized_mean(log_probabilities, r, weights), labels)
            if areas is not None and eta:
                # Not the sigmoid: in float32 its gradient p (1 - p) is 0 from a logit of 17 on, that of exp(log p) is exact.
                total = total + eta * area_constraint(log_probabilities.exp(), labels, areas, weights)
        return total


def needs_areas(etas: Sequence[float], eta_fuse: float, eta_scale: float = 1.0) -> bool:
    """Whether the area constraint has a weight at any map, so that areas are needed; a single side output has no fusion.

    Args:
        etas: weight at each side output.
        eta_fuse: weight at the fusion.
        eta_scale: all weights are multiplied by it.

    >>> needs_areas([0, 0, 0], 10), needs_areas([0], 10), needs_areas([2.5, 5], 0, eta_scale=0)
    (True, False, False)
    """
    return eta_scale > 0 and (any(etas) or (len(etas) > 1 and eta_fuse > 0))


class DeepWeakSupervisionLoss(nn.Module):
    """Module of `deep_weak_supervision_loss`.

    Args:
        etas: weight of the area constraint at each side output, >= 0. All 0, with `eta_fuse`, is DWS-MIL.
        eta_fuse: the same at the fusion, >= 0.
        r: sharpness of the generalised mean, > 0.
        area_weighted_superpixels: weight super-pixels by their numbers of pixels.
        num_side_outputs: of the network, to check `etas` before anything is trained; None for no check.
        eta_scale: all of the constraint's weights are multiplied by it, >= 0.

    Raises:
        ValueError: if a weight of the constraint is negative, r is not positive and finite, or there is not one eta for each
            side output.
    """

    def __init__(
        self,
        etas: Sequence[float] = (2.5, 5, 10),
        eta_fuse: float = 10,
        r: float = 4,
        area_weighted_superpixels: bool = False,
        num_side_outputs: int | None = None,
        eta_scale: float = 1.0,
    ) -> None:
        super().__init__()
        _check_etas(etas, eta_fuse)
        if num_side_outputs not in (None, len(etas)):
            raise ValueError(
                f"the network has {num_side_outputs} side outputs, but there are {len(etas)} etas, {list(etas)}: "
                "give one eta per side output"
            )
        if not 0 < r < math.inf:
            raise ValueError(f"r must be > 0 and finite; got {r}")
        if not 0 <= eta_scale < math.inf:
            raise ValueError(f"eta_scale must be >= 0 and finite; got {eta_scale}")
        # As they were given where they are not scaled.
        self.etas = tuple(etas) if eta_scale == 1 else tuple(eta * eta_scale for eta in etas)
        self.eta_fuse = eta_fuse if eta_scale == 1 else eta_fuse * eta_scale
        self.r = r
        self.area_weighted_superpixels = area_weighted_superpixels

    @property
    def needs_areas(self) -> bool:
        """Whether the area constraint has a weight at any map; a single side output has no fusion."""
        return needs_areas(self.etas, self.eta_fuse)

    def forward(
        self,
        outputs: tuple[Tensor, Tensor | None],
        labels: Tensor,
        areas: Tensor | None = None,
        superpixels: Tensor | None = None,
        num_superpixels: int | None = None,
    ) -> Tensor:
        """Side logits ``(B, T, H, W)`` with fusion probabilities ``(B, 1, H, W)`` or None, image labels ``(B,)``, cancer areas
        ``(B,)`` and super-pixel ids ``(B, 1, H, W)``, with their `num_ids`, to a scalar."""
        side_logits, fusion_probabilities = outputs
        return deep_weak_supervision_loss(
            side_logits,
            fusion_probabilities,
            labels,
            areas,
            superpixels,
            self.etas,
            self.eta_fuse,
            self.r,
            self.area_weighted_superpixels,
            num_superpixels,
        )


def _check_outputs(side_logits: Tensor, fusion_probabilities: Tensor | None) -> None:
    if side_logits.ndim != 4 or side_logits.numel() == 0:
        raise ValueError(f"side logits must be (B, T, H, W) and not empty; got {tuple(side_logits.shape)}")
    num_images, _, height, width = side_logits.shape
    if fusion_probabilities is not None and fusion_probabilities.shape != (num_images, 1, height, width):
        wanted = (num_images, 1, height, width)
        raise ValueError(f"fusion probabilities must be {wanted}; got {tuple(fusion_probabilities.shape)}")


def _check_etas(etas: Sequence[float], eta_fuse: float) -> None:
    if not all(eta >= 0 for eta in (*etas, eta_fuse)):
        raise ValueError(f"etas must be >= 0; got etas={tuple(etas)}, {eta_fuse=}")


def _log_of_pixels(sides: Tensor, fusion: Tensor | None) -> list[Tensor]:
    """Log probabilities of each map's pixels, ``(B, H * W)`` each."""
    log_maps = [F.logsigmoid(logits) for logits in sides.flatten(2).unbind(1)]
    return log_maps if fusion is None else [*log_maps, _log(fusion.flatten(1))]


def _log_of_superpixels(
    sides: Tensor, fusion: Tensor | None, superpixels: Tensor, num_superpixels: int | None
) -> tuple[list[Tensor], Tensor]:
    """The same of each map's super-pixels, ``(B, N)`` each, and their numbers of pixels ``(B, N)``."""
    tumour, normal = sides.sigmoid(), (-sides).sigmoid()
    if fusion is not None:
        tumour, normal = torch.cat([tumour, fusion], dim=1), torch.cat([normal, 1 - fusion], dim=1)
    places = at_places(superpixels, tumour.shape[-2:])
    means, counts = superpixel_means(torch.cat([tumour, normal], dim=1), places, num_superpixels)
    tumour, normal = means.chunk(2, dim=1)
    # Close to 1 the mean of p has lost what the mean of 1 - p still has. The clamp does not touch what is picked.
    log_tumour = torch.where(tumour < 0.5, _log(tumour), torch.log1p(-normal.clamp(max=0.75)))
    return list(log_tumour.unbind(1)), counts


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
