"""The training augmentation of CAMEL (section 4.2): rotation, mirroring and scaling, of an image and its pixel labels alike."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import (
    CastToTyped,
    Compose,
    Flipd,
    Lambdad,
    RandAffined,
    RandAffineGrid,
    RandAxisFlipd,
    RandFlipd,
    RandRotate90d,
    RandSpatialCropd,
    Resized,
    Rotate90d,
    ToTensord,
    Transform,
)

from .stain_jitter import RandomStainJitterd
from .stain_normalization import NormalizeStainsd
from .view_sampling import ViewSampling

# Every pixel of the image is still there after them, or its share of the image is.
_KEEP_THE_VIEW = (Flipd, RandAxisFlipd, RandFlipd, RandRotate90d, Resized, Rotate90d)
_CHANGE_THE_VIEW = ("monai.transforms.croppad", "monai.transforms.spatial")


class RandQuarterTurnd(RandRotate90d):
    """MONAI's `RandRotate90d`, which turns images that are not square by half a turn only: they keep their shape."""

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        height, width = next(data[key] for key in self.key_iterator(data)).shape[-2:]
        if height == width:
            return dict(super().__call__(data, lazy=lazy))
        self.randomize()
        turned = dict(data)
        if self._do_transform:
            turned |= {key: torch.rot90(turned[key], 2, (-2, -1)) for key in self.key_iterator(turned)}
        return turned


class _IsotropicGrid(RandAffineGrid):
    """MONAI's `RandAffineGrid`, which scales both axes as it has drawn for the first."""

    def randomize(self, data: Any | None = None) -> None:
        super().randomize(data)
        self.scale_params = self.scale_params[:1] * len(self.scale_params)  # type: ignore[operator, index, arg-type]


def training_augmentation(
    keys: Sequence[str] = ("image",),
    crop_size_px: int | None = None,
    free_rotation: bool = True,
    max_scale: float = 1.2,
    stain_jitter: float = 0.0,
    isotropic: bool = False,
) -> Transform:
    """Rotation (steps of 90 degrees, then free), mirroring, scaling in ``[1, max_scale]``, optional stain jitter and crop.

    Images that are not square are turned by steps of 180 degrees.

    Corners that a free rotation uncovers are filled by reflection, so that tissue borders on tissue (the paper does not say).

    Args:
        keys: ``"image"``, which must be among them, ``"mask"`` and ``"superpixels"``; ``(C, H, W)`` tensors, uint8 but for the
            super-pixels' ids, which are int32 and below 2^24. Every key but ``"image"`` is sampled by nearest neighbour.
        crop_size_px: side of a random square crop, taken last; None for none.
        free_rotation: also rotate by any angle; off saves resampling where `max_scale` is 1 too.
        max_scale: largest magnification.
        stain_jitter: strength of `RandomStainJitterd`; 0 (the paper) for none.
        isotropic: draw one magnification for both axes, and not one for each (the paper does not say).

    Returns:
        A MONAI transform of dictionaries that gives tensors of the same types again: its steps are drawn one by one and done at
        once, see `ViewSampling`.
    """
    steps: list[Transform] = [
        RandQuarterTurnd(keys, prob=0.75, max_k=3),
        RandFlipd(keys, prob=0.5, spatial_axis=1),
    ]
    if free_rotation or max_scale > 1:
        steps.append(_rotation_and_scaling(keys, free_rotation, max_scale, isotropic))
    if stain_jitter > 0:
        steps.append(RandomStainJitterd(["image"], strength=stain_jitter))
    if crop_size_px is not None:
        steps.append(RandSpatialCropd(keys, roi_size=(crop_size_px, crop_size_px), random_size=False))
    # The cast alone would cut off the decimals and darken the image by half a grey value.
    dtypes = [torch.int32 if key == "superpixels" else torch.uint8 for key in keys]
    steps += [Lambdad("image", torch.round), CastToTyped(keys, dtype=dtypes), ToTensord(keys, track_meta=False)]
    return ViewSampling(steps)


def _rotation_and_scaling(keys: Sequence[str], free_rotation: bool, max_scale: float, isotropic: bool) -> RandAffined:
    ranges: dict[str, Any] = {
        "rotate_range": math.pi / 4 if free_rotation else 0.0,
        # MONAI scales the sampling grid: below 1 magnifies.
        "scale_range": [(1 / max_scale - 1, 0.0)] * 2 if max_scale > 1 else None,
    }
    modes = ["bilinear" if key == "image" else "nearest" for key in keys]
    step = RandAffined(keys, prob=1.0, mode=modes, padding_mode="reflection", cache_grid=False, **ranges)
    if isotropic:
        step.rand_affine.rand_affine_grid = _IsotropicGrid(**ranges)
    return step


def view_changes(transform: Any) -> list[str]:
    """Names of the steps of a MONAI transform that change which part of the tissue an image shows: crops, scaling, rotation.

    Flips, quarter turns and resizing of the whole image do not count: shares of the image's area stay what they are.

    >>> view_changes(training_augmentation(crop_size_px=32))
    ['RandAffined', 'RandSpatialCropd']
    """
    return [type(step).__name__ for step in _steps(transform) if _changes_the_view(step)]


def _steps(transform: Any) -> Iterator[Any]:
    steps = getattr(transform, "transforms", None)
    if steps is None:
        yield transform
    else:
        for step in steps:
            yield from _steps(step)


def _changes_the_view(step: Any) -> bool:
    modules = (kind.__module__ for kind in type(step).__mro__)
    return any(name.startswith(_CHANGE_THE_VIEW) for name in modules) and not isinstance(step, _KEEP_THE_VIEW)


def stain_reference_of_maps(stain_reference: str | None, normalized_images: str = "all") -> str | None:
    """What the stains of masked images and slides are normalised to: nothing where those of labelled images alone are.

    Args:
        stain_reference: see `normalized_and_augmented`.
        normalized_images: ``"all"`` or ``"labelled"``.

    Raises:
        ValueError: for another word.
    """
    if normalized_images not in ("all", "labelled"):
        raise ValueError(f"normalized_images must be all or labelled; got {normalized_images!r}")
    return stain_reference if normalized_images == "all" else None


def normalized_and_augmented(
    keys: Sequence[str] = ("image",),
    stain_reference: str | None = None,
    augment: bool = False,
    stain_jitter: float = 0.0,
) -> Transform | None:
    """Macenko normalisation of the image, then quarter turns, mirroring and stain jitter, each optional.

    Args:
        keys: see `training_augmentation`.
        stain_reference: an image file, ``"monai"`` for MONAI's reference, or None for no normalisation.
        augment: whether to turn, mirror and jitter.
        stain_jitter: see `training_augmentation`; of augmented images only.

    Returns:
        A MONAI transform of dictionaries, or None if there is nothing to do.

    Raises:
        ValueError: see `shared.data.StainReference.of_image`.
    """
    steps: list[Any] = []
    if stain_reference is not None:
        steps.append(NormalizeStainsd("image", None if stain_reference == "monai" else stain_reference))
    if augment:
        steps.append(training_augmentation(keys, free_rotation=False, max_scale=1.0, stain_jitter=stain_jitter))
    return Compose(steps) if steps else None
