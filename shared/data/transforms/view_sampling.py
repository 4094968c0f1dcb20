"""One resampling of the kept pixels in place of a chain's turn, mirroring, rotation, scaling and crop: at once or per batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from monai.transforms import Compose, RandAffined, RandFlipd, RandRotate90d, RandSpatialCropd
from torch import Tensor
from torch.nn import functional as F

from .batch_augmentation import scale_tile_stains
from .stain_jitter import RandomStainJitterd

# Of an item or batch whose augmentation is still to come: what was drawn for it.
VIEW = "view"


class ViewSampling(Compose):
    """A chain of random steps, drawn as it draws and applied in one: the same images and masks at a fraction of the cost.

    The chain turns, mirrors, rotates, scales and resamples all pixels in double precision before it crops. Here the same random
    numbers give one affine map, and the pixels that are kept are sampled once, in single precision: images differ by a grey
    value where the chain's value is next to the half of one, pixel labels where a pixel's centre falls on the border of two.
    Without a free rotation or scaling there is nothing to resample, and both are equal pixel for pixel.

    ``Compose(sampling.transforms)`` is the chain itself.

    Args:
        transforms: MONAI's steps in this order, each at most once: `RandRotate90d`, `RandFlipd` of the columns, `RandAffined`,
            `RandomStainJitterd`, `RandSpatialCropd`; other steps draw nothing and only say which types come out.

    Attributes:
        deferred: give the images and labels as they are, and what was drawn as ``view``, for `sample_views`.
    """

    deferred = False

    def __call__(self, input_: Mapping[Any, Any], *_: Any, **__: Any) -> dict[Any, Any]:  # type: ignore[override]
        """Draw for a dictionary of ``image`` uint8 ``(3, H, W)`` and its pixel labels ``(1, H, W)``, and apply what was drawn."""
        item = dict(input_)
        view = self.draw(item["image"].shape[-2:])
        if self.deferred:
            return {**item, VIEW: view}
        for key in self.transforms[0].keys:
            item[key] = _sampled(item[key], key, view)
        return item

    def draw(self, size: torch.Size) -> dict[str, Tensor]:
        """Draw what the chain would draw for an image of this (height, width).

        Returns:
            ``matrix`` float64 ``(2, 3)``, from the (row, column, 1) of a kept pixel to the place in the image that it shows, as
            (row, column) in pixels; ``size_px`` int64 ``(2,)``, kept rows and columns; with stain jitter ``stain_factors`` and
            ``stain_shifts`` ``(3,)``, see `scale_stains`.
        """
        turn, mirroring, linear = torch.eye(2).double(), torch.eye(2).double(), torch.eye(2).double()
        corner, kept = torch.zeros(2).double(), list(size)
        view: dict[str, Tensor] = {}
        for step in self.transforms:
            if isinstance(step, RandRotate90d):
                turn = _turn(step, size)
            elif isinstance(step, RandFlipd):
                step.randomize(None)
                mirroring = torch.diag(torch.tensor([1.0, -1.0 if step._do_transform else 1.0]).double())
            elif isinstance(step, RandAffined):
                linear = _linear(step, size)
            elif isinstance(step, RandomStainJitterd):
                step.randomize(None)
                view |= {"stain_factors": step.factors, "stain_shifts": step.shifts}
            elif isinstance(step, RandSpatialCropd):
                step.randomize(size)
                parts = step.cropper._slices  # type: ignore[attr-defined]
                corner = torch.tensor([part.start for part in parts]).double()
                kept = [part.stop - part.start for part in parts]
        centre = (torch.tensor(size).double() - 1) / 2
        backwards = turn @ mirroring @ linear
        place = backwards @ (corner - centre) + centre
        return {"matrix": torch.cat([backwards, place[:, None]], 1), "size_px": torch.tensor(kept), **view}


def defer_views(transform: Compose) -> Compose:
    """A copy of a transform whose last step, if it is a `ViewSampling`, is deferred."""
    copied = copy.deepcopy(transform)
    last: Any = copied
    while not isinstance(last, ViewSampling) and getattr(last, "transforms", None):
        last = last.transforms[-1]
    if isinstance(last, ViewSampling):
        last.deferred = True
    return copied


def _turn(step: RandRotate90d, size: torch.Size) -> Tensor:
    step.randomize()
    quarters = step._rand_k if step._do_transform else 0
    if size[0] != size[1]:
        quarters = 2 * bool(quarters)
    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()
    return torch.linalg.matrix_power(quarter, quarters)


def _linear(step: RandAffined, size: torch.Size) -> Tensor:
    # As MONAI draws: once for the step, and again when it makes the grid, which lazily is its matrix alone.
    step.randomize(None)
    step.rand_affine.randomize()
    grid = step.rand_affine.rand_affine_grid
    grid(size, lazy=True)
    return grid.get_transformation_matrix()[:2, :2].double()  # type: ignore[index]


def _sampled(pixels: Tensor, key: str, view: Mapping[str, Tensor]) -> Tensor:
    """One image or its labels ``(C, H, W)`` as a view shows them, of the same type."""
    if _is_exact(view["matrix"]):
        kept = _turned(pixels, view)[None]
    else:
        kept = _resampled(pixels[None], key, view["matrix"][None], view["size_px"].tolist())
    return _finished(kept, key, {name: values[None] for name, values in view.items()})[0]


def _is_exact(matrix: Tensor) -> bool:
    return bool(torch.isin(matrix[:, :2], torch.tensor([-1.0, 0.0, 1.0]).double()).all())


def _turned(pixels: Tensor, view: Mapping[str, Tensor]) -> Tensor:
    """The pixels of a view that turns by quarters, mirrors and crops alone."""
    rows, columns = view["size_px"].tolist()
    matrix = view["matrix"]
    corners = matrix @ torch.tensor([[0, rows - 1], [0, columns - 1], [1, 1]]).double()
    (top, left), (bottom, right) = corners.amin(1).round().int().tolist(), corners.amax(1).round().int().tolist()
    kept = pixels[:, top : bottom + 1, left : right + 1]
    reversed_dims = [dim + 1 for dim in (0, 1) if matrix[dim, :2].sum() < 0]
    kept = kept.flip(reversed_dims) if reversed_dims else kept
    return kept.mT if matrix[0, 0] == 0 else kept


def _resampled(pixels: Tensor, key: str, matrices: Tensor, size_px: list[int]) -> Tensor:
    """Pixels ``(B, C, H, W)`` at the places of the kept ones, float32: images bilinearly, labels of the nearest pixel."""
    size = torch.tensor(pixels.shape[-2:]).double()
    # In pairs (x, y) from -1 to 1 over the image, as grid_sample wants them.
    normalized = (2 * matrices + torch.tensor([0.0, 0.0, 1.0])) / size[:, None] - torch.tensor([0.0, 0.0, 1.0])
    normalized = normalized.flip(1).float().to(pixels.device, non_blocking=True)
    rows, columns = (torch.arange(side, device=pixels.device, dtype=torch.float32) for side in size_px)
    # Of a sum that is separable: a matrix product for every pixel costs several times as much.
    of_rows = normalized[:, :, 0, None, None] * rows[:, None] + normalized[:, :, 2, None, None]
    grid = (of_rows + normalized[:, :, 1, None, None] * columns).permute(0, 2, 3, 1)
    mode = "bilinear" if key == "image" else "nearest"
    return F.grid_sample(pixels.float(), grid, mode=mode, padding_mode="reflection", align_corners=False)


def _finished(kept: Tensor, key: str, views: Mapping[str, Tensor]) -> Tensor:
    """A batch of kept pixels with its stains changed, in the type for further use."""
    if key == "superpixels":
        return kept.int()
    if key == "image" and "stain_factors" in views:
        kept = scale_tile_stains(kept, views["stain_factors"], views["stain_shifts"])
    # The cast alone would cut off the decimals and darken the image by half a grey value.
    return kept.round().byte() if kept.is_floating_point() else kept.byte()


def sample_views(
    batch: Mapping[str, Any], device: torch.device | str | None = None, non_blocking: bool = False
) -> dict[str, Any]:
    """Augment a batch whose items have their views, on a device.

    Args:
        batch: collated items of a deferred `ViewSampling`, of images of one size and one size to keep; also a dictionary of
            such batches. One without views comes back as it is.
        device: where to sample.
        non_blocking: of the copies to the device.

    Returns:
        The batch with ``image``, ``mask`` and ``superpixels`` on the device, ``(B, C, h, w)`` of the types that they had.
    """
    if VIEW not in batch:
        return {
            name: sample_views(part, device, non_blocking) if isinstance(part, Mapping) else part for name, part in batch.items()
        }
    views = batch[VIEW]
    # Known on the CPU: reading it from the device would wait for it.
    size_px = views["size_px"][0].tolist()
    result = {name: part for name, part in batch.items() if name != VIEW}
    for key in ("image", "mask", "superpixels"):
        if key in result:
            pixels = result[key].to(device, non_blocking=non_blocking)
            result[key] = _finished(_resampled(pixels, key, views["matrix"], size_px), key, views)
    return result
