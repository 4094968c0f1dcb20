"""RGB in other colours, by arithmetic alone: exact under autocast, and part of an exported network."""

import math

import torch
from torch import Tensor

__all__ = ["rgb_to_grey", "rgb_to_hed", "rgb_to_lab"]


def rgb_to_grey(images: Tensor) -> Tensor:
    """Luminance (ITU-R 709) of RGB ``(B, 3, H, W)`` float: ``(B, 1, H, W)``, in the same range."""
    return 0.2125 * images[:, 0:1] + 0.7154 * images[:, 1:2] + 0.0721 * images[:, 2:3]


def rgb_to_lab(images: Tensor) -> Tensor:
    """CIE L*a*b* under daylight (D65, 2 degrees) of sRGB images.

    Args:
        images: ``(B, 3, H, W)`` float, 0 to 1.

    Returns:
        ``(B, 3, H, W)``: L 0 to 100, a and b about -128 to 128.

    Reference:
        ``skimage.color.rgb2lab``.

    >>> rgb_to_lab(torch.ones(1, 3, 1, 1)).flatten().round(decimals=1).abs()
    tensor([100.,   0.,   0.])
    """
    linear = torch.where(images > 0.04045, ((images + 0.055) / 1.055).clamp_min(0.0).pow(2.4), images / 12.92)
    red, green, blue = linear[:, 0:1], linear[:, 1:2], linear[:, 2:3]
    # sRGB to XYZ, each divided by that of white.
    x = _lightness((0.412453 * red + 0.357580 * green + 0.180423 * blue) / 0.95047)
    y = _lightness(0.212671 * red + 0.715160 * green + 0.072169 * blue)
    z = _lightness((0.019334 * red + 0.119193 * green + 0.950227 * blue) / 1.08883)
    return torch.cat([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], dim=1)


def rgb_to_hed(images: Tensor) -> Tensor:
    """Amounts of haematoxylin, eosin and DAB by colour deconvolution.

    Args:
        images: ``(B, 3, H, W)`` float, 0 to 1.

    Returns:
        ``(B, 3, H, W)``, 0 and above; of H&E mostly below 0.3, 0.2 and 0.05.

    Reference:
        Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 2001; ``skimage.color.rgb2hed``.
    """
    least = 1e-6
    density = images.clamp_min(least).log() / math.log(least)
    red, green, blue = density[:, 0:1], density[:, 1:2], density[:, 2:3]
    haematoxylin = 1.87798274 * red - 0.06590806 * green - 0.60190736 * blue
    eosin = -1.00767869 * red + 1.13473037 * green - 0.48041419 * blue
    dab = -0.55611582 * red - 0.1355218 * green + 1.57358807 * blue
    return torch.cat([haematoxylin, eosin, dab], dim=1).clamp_min(0.0)


def _lightness(share: Tensor) -> Tensor:
    return torch.where(share > 0.008856, share.clamp_min(1e-4).pow(1.0 / 3.0), 7.787 * share + 16.0 / 116.0)
