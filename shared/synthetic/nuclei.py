"""Nuclei: populations of irregular ellipses with chromatin texture, on jittered lattices, drawn in batches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .fields import smooth_field

_BATCH = 32
# Two nuclei on top of each other absorb more than one, but no more than this.
_MAX_CONCENTRATION = 2.4
_CUT_SIGMA = 2.2


@dataclass(frozen=True)
class Population:
    """One kind of nucleus at 0.5 um/px; spreads are standard deviations of logarithms, so the kinds overlap.

    Attributes:
        spacing_px: lattice distance of neighbouring nuclei.
        radius_px: median radius of the circle of equal area.
        radius_spread: spread of the radius.
        aspect: median ratio of the axes, at least 1.
        aspect_spread: spread of the ratio.
        irregularity: amplitude of the outline's harmonics 2-4 as a share of the radius.
        density: median haematoxylin concentration.
        density_spread: spread of the concentration.
        chromatin: amplitude of the chromatin texture.
        vesicular: how much paler the centre is than the rim, 0..1.
        nucleolus: concentration of the nucleolus over that of the nucleus.
    """

    spacing_px: float
    radius_px: float
    radius_spread: float
    aspect: float
    aspect_spread: float
    irregularity: float
    density: float
    density_spread: float
    chromatin: float
    vesicular: float
    nucleolus: float


TUMOUR = Population(21.9, 9.2, 0.24, 1.30, 0.16, 0.095, 0.95, 0.22, 0.50, 0.48, 0.90)
EPITHELIUM = Population(13.3, 5.2, 0.17, 1.30, 0.12, 0.025, 1.00, 0.18, 0.18, 0.15, 0.10)
LYMPHOCYTE = Population(9.8, 3.9, 0.10, 1.08, 0.06, 0.020, 1.25, 0.12, 0.26, 0.00, 0.00)
FIBROBLAST = Population(21.0, 4.4, 0.20, 2.90, 0.25, 0.040, 0.95, 0.20, 0.22, 0.10, 0.05)
ACTIVATED_FIBROBLAST = Population(21.0, 5.4, 0.22, 2.10, 0.22, 0.050, 0.95, 0.22, 0.28, 0.25, 0.30)


def scatter(rng: np.random.Generator, shape: tuple[int, int], spacing_px: float, margin_px: int) -> NDArray[np.float32]:
    """Centres (x, y) ``(n, 2)`` on a jittered hexagonal lattice, reaching `margin_px` over every edge of (H, W)."""
    step = np.asarray([spacing_px, spacing_px * 0.866])
    counts = np.ceil((np.asarray(shape[::-1]) + 2 * margin_px) / step).astype(int) + 1
    columns, rows = np.meshgrid(np.arange(counts[0]), np.arange(counts[1]))
    lattice = np.stack([columns + 0.5 * (rows % 2), rows], axis=-1).reshape(-1, 2) * step - margin_px
    lattice += rng.uniform(-step / 2, step / 2)
    lattice += rng.normal(0, 0.19 * spacing_px, lattice.shape)
    inside = ((lattice > -margin_px) & (lattice < np.asarray(shape[::-1]) + margin_px)).all(axis=1)
    return lattice[inside].astype(np.float32)


def draw_nuclei(
    canvas: NDArray[np.float32],
    rng: np.random.Generator,
    centres: NDArray[np.float32],
    population: Population,
    angles: NDArray[np.float32] | None = None,
) -> None:
    """Add the haematoxylin of a population's nuclei to `canvas`.

    Args:
        canvas: concentration ``(H, W)``, changed in place; nuclei over its edges are cut off.
        rng: source of randomness.
        centres: (x, y) in pixels of the canvas, ``(n, 2)``.
        population: what the nuclei look like.
        angles: direction of the long axis in radians ``(n,)``; default: random.
    """
    count = len(centres)
    if count == 0:
        return

    def spread(median: float, sigma: float) -> NDArray[np.float32]:
        return (median * np.exp(sigma * np.clip(rng.standard_normal(count), -_CUT_SIGMA, _CUT_SIGMA))).astype(np.float32)

    radius = spread(population.radius_px, population.radius_spread)
    aspect = np.maximum(spread(population.aspect, population.aspect_spread), 1)
    density = spread(population.density, population.density_spread)
    vesicular = np.clip(population.vesicular * (1 + 0.5 * rng.standard_normal(count)), 0, 0.85).astype(np.float32)
    if angles is None:
        angles = rng.uniform(0, np.pi, count).astype(np.float32)
    rotation = np.exp(-1j * angles).astype(np.complex64)
    harmonics = rng.standard_normal((count, 3)) + 1j * rng.standard_normal((count, 3))
    harmonics = (population.irregularity * harmonics / np.sqrt([1, 1.6, 3.2])).astype(np.complex64)
    spot = rng.uniform(-0.45, 0.45, (count, 2)).astype(np.float32)
    spot_density = (population.nucleolus * rng.uniform(0, 1, count) ** 2 * 1.8).astype(np.float32)

    reach = np.ceil(radius * np.sqrt(aspect) * (1 + 2.5 * population.irregularity) + 2).astype(int)
    texture = smooth_field(rng, (128 + 2 * int(reach.max()), 128 + 2 * int(reach.max())), 2.3)
    texture_at = rng.integers(0, 128, (count, 2))
    order = np.argsort(reach, kind="stable")
    for start in range(0, count, _BATCH):
        batch = order[start : start + _BATCH]
        half = int(reach[batch[-1]])
        whole = np.round(centres[batch]).astype(int)
        shift = (whole - centres[batch])[:, :, None, None]
        steps = np.arange(-half, half + 1, dtype=np.float32)
        x = steps[None, None, :] + shift[:, 0]
        y = steps[None, :, None] + shift[:, 1]
        cos, sin = rotation[batch].real[:, None, None], rotation[batch].imag[:, None, None]
        stretch = np.sqrt(aspect[batch]) * radius[batch]
        squeeze = radius[batch] / np.sqrt(aspect[batch])
        u = (x * cos - y * sin) / stretch[:, None, None]
        v = (x * sin + y * cos) / squeeze[:, None, None]
        distance = np.sqrt(u * u + v * v) + np.float32(1e-6)
        outline = _outline(u / distance, v / distance, harmonics[batch])
        depth = 1 - distance / outline
        # The edge is two pixels wide, measured along the mean radius.
        patch = np.clip(depth * (radius[batch] * np.float32(0.5))[:, None, None] + np.float32(0.5), 0, 1)
        windows = np.lib.stride_tricks.sliding_window_view(texture, (2 * half + 1, 2 * half + 1))
        chromatin = windows[texture_at[batch, 1], texture_at[batch, 0]]
        pale = vesicular[batch][:, None, None] * np.clip(depth * 1.6, 0, 1)
        to_spot = (u - spot[batch, 0, None, None]) ** 2 + (v - spot[batch, 1, None, None]) ** 2
        inner = 1 - pale + np.float32(population.chromatin) * chromatin
        inner += spot_density[batch][:, None, None] * np.clip(1 - to_spot * 7, 0, 1)
        patch *= np.clip(inner, 0.15, 2.0)
        patch *= density[batch][:, None, None]
        _blend(canvas, patch, whole - half)


def _outline(cos: NDArray[np.float32], sin: NDArray[np.float32], harmonics: NDArray[np.complex64]) -> NDArray[np.float32]:
    """1 + Re(sum_k h_k * exp(i k theta)), k = 2, 3, 4, from the cosine and sine of theta (no arctan)."""
    turn = np.empty(cos.shape, np.complex64)
    turn.real, turn.imag = cos, sin
    second, third, fourth = (harmonics[:, k, None, None] for k in range(3))
    sum_ = fourth * turn
    sum_ += third
    sum_ *= turn
    sum_ += second
    sum_ *= turn
    # Only the real part of the last product is needed.
    outline = 1 + sum_.real * cos - sum_.imag * sin
    return np.maximum(outline, np.float32(0.4))


def _blend(canvas: NDArray[np.float32], patches: NDArray[np.float32], corners: NDArray[np.int_]) -> None:
    """Screen `patches` (n, P, P) onto `canvas` with their first pixels at `corners` (x, y)."""
    height, width = canvas.shape
    size = patches.shape[1]
    for patch, (x, y) in zip(patches, corners.tolist(), strict=True):
        left, top = max(-x, 0), max(-y, 0)
        right, bottom = min(width - x, size), min(height - y, size)
        if left >= right or top >= bottom:
            continue
        under = canvas[y + top : y + bottom, x + left : x + right]
        cut = patch[top:bottom, left:right]
        under += cut * (1 - under * np.float32(1 / _MAX_CONCENTRATION))
