"""The colour of a slide's empty glass, and pictures corrected to white glass and strong stain."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, maximum_filter, uniform_filter
from skimage.morphology import disk, opening

Array = NDArray[np.float32]

# Larger pictures are looked at in every second, third, ... pixel.
_LARGEST_PX = 2**17
_WINDOW_PX = 5
# Standard deviation in the window: glass stays below 3 with a scanner's noise and JPEG, of tissue one pixel in fifty does.
_SMOOTH = 4.0
# Of what may be glass: darker is a border of the scan or a label; as pale as this, tissue is no tint of the light. Glass is
# tinted by lamps (yellow), filters (blue, green) and, least of all, in the colours of the stain.
_DARKEST = 150
_MOST_WARM, _MOST_COLD, _MOST_PINK = 0.3, 0.2, 0.12
# Glass is as bright as anything on the slide but for specks.
_LEAST_BRIGHTNESS = 0.9
_LEAST_SHARE, _LEAST_PX = 0.01, 64
# Where nothing was scanned some slides are filled with pure white.
_FILL_FROM, _FILL_VARIES_BY, _LEAST_SHARE_BESIDE_FILL = 253, 0.5, 0.05
# What has a hue of the stain is glass only where something darker lies on it, or where nothing at all does: less than this of
# its light passes there, over so much of the picture; or so much of it is smooth and it is hardly tinted.
_STAINED_LIGHT, _LEAST_STAINED = 0.85, 0.02
_ALL_SMOOTH, _HARDLY_TINTED, _NOT_TINTED = 0.9, 0.09, 0.02
# Brightness of one colour of glass, from its mean.
_SPREAD = 4
# Saturation of well stained tissue, three quarters of which is paler; below the second a stain is pale, and made so strong.
_STRONG, _PALE, _RAMP = 0.3, 0.15, 60.0
# What is stained differs from glass by more than noise, with an edge or a texture that the unevenness of light has not.
_LEAST_DIFFERENCE, _NUM_DEVIATIONS, _LEAST_NOISE = 0.012, 6, 0.002
_LEAST_EDGE, _EDGE_OVER_NOISE = 3.5, 3.0
_LEAST_STAINED_SHARE, _MOST_INK = 0.003, 0.5
_GLASS_FROM, _MOST_GLASS_NOISE = 240, 0.04


def glass_colour(rgb: NDArray[np.uint8]) -> Array | None:
    """The colour of the empty glass, three values in 0..255; None if no glass can be recognised.

    It is the brightest of the colours that are spread evenly over a hundredth of the picture. Dark borders and the white of
    parts that were not scanned do not count as glass; nor does anything as coloured as tissue.

    Args:
        rgb: uint8 ``(H, W, 3)``.
    """
    mean, deviation = _local_moments(rgb)
    brightest, darkest = mean.max(axis=-1), mean.min(axis=-1)
    brightness = mean.mean(axis=-1)
    fill = (darkest >= _FILL_FROM) & (deviation < _FILL_VARIES_BY)
    has_fill = _LEAST_SHARE <= fill.mean() <= 1 - _LEAST_SHARE_BESIDE_FILL
    if has_fill:
        # Around it the window holds some of it.
        brightness = np.where(maximum_filter(fill, 2 * _WINDOW_PX - 1), 0, brightness)
    candidates = (deviation < _SMOOTH) & (brightest >= _DARKEST) & (brightness > 0)
    candidates &= 1 - darkest / np.maximum(brightest, 1) <= _most_saturation(mean, has_fill)
    candidates &= brightness >= _LEAST_BRIGHTNESS * np.percentile(brightness[brightness > 0], 99)
    least = max(_LEAST_PX, (_LEAST_SHARE_BESIDE_FILL if has_fill else _LEAST_SHARE) * brightness.size)
    colour = _brightest_colour(mean[candidates], brightness[candidates], least)
    if colour is None or not _is_plausible(colour, mean, deviation):
        return None
    return colour


def on_white_glass(rgb: NDArray[np.uint8], glass: Array) -> NDArray[np.uint8]:
    """A picture ``(H, W, 3)`` divided by the colour of its glass."""
    values = np.arange(256, dtype=np.float32)
    tables = np.stack([np.clip(np.rint(values * 255 / one), 0, 255) for one in np.maximum(glass, 1)]).astype(np.uint8)
    return np.stack([tables[channel][rgb[..., channel]] for channel in range(3)], axis=-1)


def stain_gain(rgb: NDArray[np.uint8], saturation: NDArray[np.floating[Any]], ink: NDArray[np.bool_]) -> float:
    """The factor by which the optical density of a pale stain is multiplied to look well stained; 1 where it does.

    Args:
        rgb: on white glass (see `on_white_glass`), uint8 ``(H, W, 3)``.
        saturation: of it, without single noisy pixels, ``(H, W)`` in 0..1.
        ink: ``(H, W)``, which is no stain.
    """
    mean, deviation = _local_moments(rgb)
    step = -(-rgb.shape[0] // mean.shape[0])
    saturation, ink = saturation[::step, ::step], ink[::step, ::step]
    glass = (mean.min(axis=-1) > _GLASS_FROM) & (deviation < _SMOOTH) & ~ink
    if glass.mean() < _LEAST_SHARE:
        return 1.0
    usual = float(np.median(saturation[glass]))
    noise = 1.4826 * float(np.median(np.abs(saturation[glass] - usual))) + _LEAST_NOISE
    stained = saturation > usual + max(_LEAST_DIFFERENCE, _NUM_DEVIATIONS * noise)
    stained = opening(stained & ~ink, disk(2))
    if stained.mean() < _LEAST_STAINED_SHARE or ink.mean() > _MOST_INK * stained.mean():
        return 1.0
    edge = float(np.median(deviation[stained & ~binary_erosion(stained)]))
    if edge < max(_LEAST_EDGE, _EDGE_OVER_NOISE * float(np.median(deviation[glass]))):
        return 1.0
    strength = float(np.percentile(saturation[stained], 75))
    gain = min(_STRONG / strength, 1 + _RAMP * (_PALE - strength), _MOST_GLASS_NOISE / (usual + 3 * noise))
    return max(1.0, gain)


def more_stained(rgb: NDArray[np.uint8], gain: float) -> NDArray[np.uint8]:
    """A picture on white glass with `gain` times its optical density."""
    return np.rint(255 * (np.arange(256) / 255) ** gain).astype(np.uint8)[rgb]


def _local_moments(rgb: NDArray[np.uint8]) -> tuple[Array, Array]:
    """The window around each pixel: mean of each channel ``(h, w, 3)``, and the largest standard deviation ``(h, w)``."""
    step = int(np.ceil(np.sqrt(rgb.shape[0] * rgb.shape[1] / _LARGEST_PX)))
    values = rgb[::step, ::step].astype(np.float32)
    size = (_WINDOW_PX, _WINDOW_PX, 1)
    mean = uniform_filter(values, size)
    variance = uniform_filter(values**2, size) - mean**2
    return mean, np.sqrt(np.maximum(variance.max(axis=-1), 0))


def _most_saturation(mean: Array, has_fill: bool) -> Array:
    """How saturated glass of each pixel's hue may be: next to white, which may be glass itself, in no hue of tissue."""
    limits = (_NOT_TINTED, _NOT_TINTED, _MOST_WARM) if has_fill else (_MOST_COLD, _MOST_PINK, _MOST_WARM)
    return np.array(limits, dtype=np.float32)[mean.argmin(axis=-1)]


def _brightest_colour(colours: Array, brightness: Array, least: float) -> Array | None:
    """The median of the brightest colours ``(n, 3)`` of which there are enough alike."""
    counts = np.bincount(brightness.astype(np.int64), minlength=256)[:256]
    alike = np.convolve(counts, np.ones(2 * _SPREAD + 1, dtype=np.int64), mode="same")
    enough = np.flatnonzero(alike >= least)
    if not len(enough):
        return None
    first = max(0, int(enough[-1]) - 2 * _SPREAD)
    peak = first + int(alike[first : int(enough[-1]) + 1].argmax())
    return np.median(colours[np.abs(brightness.astype(np.int64) - peak) <= _SPREAD], axis=0).astype(np.float32)


def _is_plausible(glass: Array, mean: Array, deviation: Array) -> bool:
    saturation = float(1 - glass.min() / glass.max())
    if saturation <= _NOT_TINTED or glass.argmin() == 2:  # no hue of tissue
        return True
    if ((mean / glass).min(axis=-1) < _STAINED_LIGHT).mean() >= _LEAST_STAINED:
        return True
    return saturation <= _HARDLY_TINTED and bool((deviation < _SMOOTH).mean() >= _ALL_SMOOTH)
