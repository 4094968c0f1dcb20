"""Stain normalisation (Macenko et al., ISBI 2009): the haematoxylin and eosin of every image become those of one reference."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.apps.pathology.transforms import ExtractHEStains, NormalizeHEStains
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray
from torch import Tensor, nn

from ...wsi.slide_pool import open_slide

# Of MONAI: transmitted light, percentile of the stains' angles, least optical density of a stained pixel.
TRANSMITTED_LIGHT, ANGLE_PERCENTILE, LEAST_DENSITY = 240.0, 1.0, 0.15
# Of all pixels, glass too.
CONCENTRATION_PERCENTILE = 99.0
# Below a share of 1 % the percentile of the concentrations is one of glass, and glass would be blown up to tissue.
MIN_STAINED = 0.05
# Sine of the angle between the two stains: 0.17 and above on 99 % of 700 tiles, 0 on grey or on a single colour.
MIN_ANGLE = 0.02
# A stain matrix is that of a tile; a whole slide would hold glass, ink and blood.
_LARGEST_REFERENCE_PX = 2**24


@dataclass(frozen=True)
class StainReference:
    """The stains to which images are normalised; the default is MONAI's own reference.

    Args:
        stains: optical density of haematoxylin and eosin, a row each for R, G, B: ``(3, 2)``.
        concentrations: 99th percentile of the two stains' concentrations: ``(2,)``.
    """

    stains: tuple[tuple[float, float], ...] = ((0.5626, 0.2159), (0.7201, 0.8012), (0.4062, 0.5581))
    concentrations: tuple[float, float] = (1.9705, 1.0308)

    @classmethod
    def of_image(cls, path: str | Path) -> StainReference:
        """The stains of an image file.

        Args:
            path: PNG, JPEG or TIFF of stained tissue, at most 4096 x 4096 px.

        Raises:
            ValueError: naming the file, if it cannot be read, is a whole slide, or shows no two stains.
        """
        slide = open_slide(path)
        width, height = slide.size_px
        if width * height > _LARGEST_REFERENCE_PX:
            raise ValueError(f"{path}: a stain reference is a tile of up to 4096 x 4096 px, got {width} x {height} px")
        image = slide.read_region((0, 0), slide.size_px)
        try:
            stains = _CheckedExtractor()(image)
        except _NoStainsError as error:
            raise ValueError(f"{path}: not usable as a stain reference: {error}") from error
        light = TRANSMITTED_LIGHT
        density = -np.log((image.reshape(-1, 3).astype(np.float32) + 1).clip(max=light) / light)
        concentrations = np.linalg.lstsq(stains, density.T, rcond=None)[0]
        first, second = np.percentile(concentrations, CONCENTRATION_PERCENTILE, axis=1)
        return cls(tuple((float(h), float(e)) for h, e in stains), (float(first), float(second)))


class NormalizeStains:
    """Normalises the stains of one image by MONAI's `NormalizeHEStains`, haematoxylin to haematoxylin; can be pickled.

    Images of which less than 5 % are stained (optical density above 0.15 in R, G and B), or whose two stains cannot be told
    apart (grey, a single colour), are returned unchanged: MONAI raises an error or gives arbitrary colours there.

    Args:
        reference: an image file, whose stains are found once, now; a `StainReference`; or None for MONAI's.

    Raises:
        ValueError: see `StainReference.of_image`.

    Reference:
        Macenko et al., ISBI 2009, as used by Ciga and Martel, section 2.3. Their released code also scales the luminosity of
        image and reference before (staintools); the paper does not, nor does this.
    """

    def __init__(self, reference: str | Path | StainReference | None = None) -> None:
        self.reference = _as_reference(reference)
        self._normalize = NormalizeHEStains(
            TRANSMITTED_LIGHT,
            ANGLE_PERCENTILE,
            LEAST_DENSITY,
            target_he=np.array(self.reference.stains),
            max_cref=np.array(self.reference.concentrations),
        )
        self._normalize.stain_extractor = _CheckedExtractor()

    def __call__(self, image: Tensor) -> Tensor:
        """Normalise an image.

        Args:
            image: RGB uint8 ``(3, H, W)``.

        Returns:
            uint8 ``(3, H, W)``, new memory unless the image is returned unchanged.

        Raises:
            ValueError: for another shape or type.
        """
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
            raise ValueError(f"need an RGB image, uint8 (3, H, W); got {image.dtype} {tuple(image.shape)}")
        try:
            normalized = self._normalize(image.permute(1, 2, 0).contiguous().numpy())
        except _NoStainsError:
            return image
        return torch.from_numpy(normalized).permute(2, 0, 1).contiguous()


class NormalizeStainsd(MapTransform):
    """Dictionary transform around `NormalizeStains`; put it before any augmentation.

    Args:
        keys: of the images.
        reference: see `NormalizeStains`.
    """

    def __init__(self, keys: KeysCollection, reference: str | Path | StainReference | None = None) -> None:
        super().__init__(keys)
        self.normalize = NormalizeStains(reference)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.normalize(result[key])
        return result


class StainNormalization(nn.Module):
    """`NormalizeStains` of each image of a batch, on the batch's device: for inference on a GPU.

    Gives the same pixels to within a grey value. On a CPU it is slower than `NormalizeStains`.

    Args:
        reference: see `NormalizeStains`.
    """

    densities: Tensor
    stains: Tensor
    concentrations: Tensor

    def __init__(self, reference: str | Path | StainReference | None = None) -> None:
        super().__init__()
        self.reference = _as_reference(reference)
        levels = (torch.arange(256.0) + 1).clamp(max=TRANSMITTED_LIGHT) / TRANSMITTED_LIGHT
        # Not in the state: the reference is a setting.
        self.register_buffer("densities", -levels.log(), persistent=False)
        self.register_buffer("stains", torch.tensor(self.reference.stains), persistent=False)
        self.register_buffer("concentrations", torch.tensor(self.reference.concentrations), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Normalise a batch.

        Args:
            images: RGB ``(N, 3, H, W)``, uint8, or float in [0, 255], which is rounded.

        Returns:
            uint8 ``(N, 3, H, W)``.

        Raises:
            ValueError: for another shape or type.
        """
        if images.is_floating_point():
            images = images.round().to(torch.uint8)
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f"need RGB images, uint8 or float (N, 3, H, W); got {images.dtype} {tuple(images.shape)}")
        with torch.autocast(images.device.type, enabled=False):
            density = self.densities[images.flatten(2).int()]
            is_stained = (density > LEAST_DENSITY).all(1)
            stains = _stain_matrices(density, is_stained)
            can_change = (is_stained.float().mean(1) >= MIN_STAINED) & (_sine(stains) >= MIN_ANGLE)
            # Any matrix that can be inverted will do for those that stay as they are.
            stains = torch.where(can_change[:, None, None], stains, self.stains)
            unmix = torch.linalg.pinv(stains)
            peaks = _percentile(unmix @ density, CONCENTRATION_PERCENTILE)
            # Unmix, scale and mix again are one 3 x 3 matrix in optical-density space.
            mapped = (self.stains * (self.concentrations / peaks)[:, None]) @ unmix @ density
            # As MONAI: 254 for what is brighter than 255, decimals cut off.
            values = TRANSMITTED_LIGHT * torch.exp(-mapped)
            normalized = values.masked_fill(values > 255, 254.0).to(torch.uint8).reshape(images.shape)
        return torch.where(can_change[:, None, None, None], normalized, images)


class _NoStainsError(ValueError):
    """An image in which haematoxylin and eosin cannot be found."""


class _CheckedExtractor(ExtractHEStains):
    """MONAI's, which refuses images that it would give arbitrary stains for, and puts haematoxylin first.

    MONAI 1.6 compares the stains' ratios of red to blue as if they were colours, but they are optical densities: it gives eosin
    first, and `NormalizeHEStains` paints stroma blue and nuclei red.
    """

    def __init__(self) -> None:
        super().__init__(TRANSMITTED_LIGHT, ANGLE_PERCENTILE, LEAST_DENSITY)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        darkest_unstained = TRANSMITTED_LIGHT * math.exp(-LEAST_DENSITY) - 1
        is_stained = (image < darkest_unstained).all(axis=-1)
        if is_stained.mean() < MIN_STAINED or is_stained.sum() < 2:
            raise _NoStainsError(f"{is_stained.mean():.1%} of its pixels are stained, and at least {MIN_STAINED:.0%} are needed")
        stains: NDArray[np.float32] = super().__call__(image)
        if not np.isfinite(stains).all() or float(_sine(torch.from_numpy(stains)[None])) < MIN_ANGLE:
            raise _NoStainsError("its pixels have one colour, not those of two stains")
        return stains if _haematoxylin_first(torch.from_numpy(stains)) else stains[:, ::-1]


def _as_reference(reference: str | Path | StainReference | None) -> StainReference:
    if reference is None:
        return StainReference()
    return reference if isinstance(reference, StainReference) else StainReference.of_image(reference)


def _stain_matrices(density: Tensor, is_stained: Tensor) -> Tensor:
    """Haematoxylin and eosin ``(N, 3, 2)`` of optical densities ``(N, 3, P)``, from the pixels ``(N, P)`` that are stained."""
    weights = is_stained[:, None].to(density.dtype)
    counts = weights.sum(2, keepdim=True)
    means = (density * weights).sum(2, keepdim=True) / counts.clamp(min=1)
    centred = (density - means) * weights
    # The plane of the two largest eigenvalues, its axes turned to the side on which the pixels lie.
    _, axes = torch.linalg.eigh(centred @ centred.mT / (counts - 1).clamp(min=1))
    axes = axes[:, :, 1:] * torch.where((axes[:, :, 1:] * means).sum(1, keepdim=True) < 0, -1.0, 1.0)
    along, across = (axes.mT @ density).unbind(1)
    angles = torch.atan2(across, along)
    ends = [_percentile(angles, q, is_stained) for q in (ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE)]
    stains = axes @ torch.stack([torch.stack([end.cos(), end.sin()], -1) for end in ends], -1)
    return torch.where(_haematoxylin_first(stains)[:, None, None], stains, stains.flip(2))


def _percentile(values: Tensor, percentile: float, where: Tensor | None = None) -> Tensor:
    """Percentile over the last dimension, like NumPy's, over the elements `where` (True for at least one).

    `torch.quantile` takes 16 million values at most.
    """
    counts = values.new_full(values.shape[:-1], values.shape[-1]) if where is None else where.sum(-1)
    ranked = (values if where is None else values.masked_fill(~where, math.inf)).sort(-1).values
    position = ((counts - 1).clamp(min=0) * (percentile / 100)).unsqueeze(-1)
    below, above = (ranked.gather(-1, place.long()) for place in (position.floor(), position.ceil()))
    return below.lerp(above, (position - position.floor()).to(values.dtype)).squeeze(-1)


def _haematoxylin_first(stains: Tensor) -> Tensor:
    """Whether the first column of ``(..., 3, 2)`` has more red for its blue: haematoxylin takes red light away, eosin blue."""
    # Not as ratios: the blue of a very blue haematoxylin may come out at 0 or just below it.
    return stains[..., 0, 0] * stains[..., 2, 1] >= stains[..., 0, 1] * stains[..., 2, 0]


def _sine(stains: Tensor) -> Tensor:
    """Sine of the angle between the two unit columns of ``(N, 3, 2)``: ``(N,)``."""
    return torch.linalg.cross(stains[..., 0], stains[..., 1]).norm(dim=-1)
