"""Tissue at 0.5 um/px: regions, the nuclei in them, fibres, cytoplasm and gaps, as concentrations of the two stains."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .fields import level_of_share, smooth_field, soft_above
from .nuclei import ACTIVATED_FIBROBLAST, EPITHELIUM, FIBROBLAST, LYMPHOCYTE, TUMOUR, Population, draw_nuclei, scatter

_TUMOUR_NEST_PX = 76.0
_GLAND_PX = 40.0
_AGGREGATE_PX = 55.0
# Tumour and glands keep a strip of stroma between them, in standard deviations of the tumour's field.
_STROMA_STRIP = 0.25
_MARGIN_PX = 24


class Tissue(NamedTuple):
    """Concentrations ``(H, W)`` of haematoxylin and eosin, and the true tumour pixels ``(H, W)``."""

    haematoxylin: NDArray[np.float32]
    eosin: NDArray[np.float32]
    tumour: NDArray[np.bool_]


@dataclass(frozen=True)
class _Regions:
    """Where things are, all ``(H, W)``; `activated` and `gaps` are ramps from 0 to 1."""

    tumour: NDArray[np.bool_]
    glands: NDArray[np.bool_]
    aggregates: NDArray[np.bool_]
    activated: NDArray[np.float32]
    gaps: NDArray[np.float32]


def sample_tumour_share(rng: np.random.Generator, low: float = 0.05, high: float = 0.7) -> float:
    """Draw the tumour share of an image that has tumour."""
    return float(rng.uniform(low, high))


def grow_tissue(
    rng: np.random.Generator,
    shape: tuple[int, int],
    tumour_share: float,
    tissue: NDArray[np.bool_] | None = None,
    nest_px: float = _TUMOUR_NEST_PX,
    gland_fill: float = 1.0,
) -> Tissue:
    """Grow tissue with an exact share of tumour.

    By default glands fill in normal tissue what tumour and glands fill together in the other, nuclei cover the same share of
    both, and gaps are as frequent: the classes differ in the nuclei, not in the amount of either stain.

    Args:
        rng: source of randomness.
        shape: (H, W).
        tumour_share: share of the tissue that is tumour, 0 for normal tissue.
        tissue: where there is tissue ``(H, W)``, default everywhere.
        nest_px: size of the tumour nests, as `spacing_px` of :func:`smooth_field`.
        gland_fill: how much of the place that tumour would take glands take in normal tissue: 1 for images whose classes have
            equal amounts of stain, 0 for normal tissue like that around a tumour.

    Returns:
        concentrations of the tissue; the area outside `tissue` is not blanked.

    Raises:
        ValueError: if `tumour_share` is not in [0, 1].
    """
    if not 0 <= tumour_share <= 1:
        raise ValueError(f"need 0 <= tumour_share <= 1; got {tumour_share}")
    regions = _lay_out(rng, shape, tumour_share, tissue, nest_px, gland_fill)
    phase, eosin = _stroma(rng, shape)
    haze = np.float32(0.06) + np.float32(0.03) * smooth_field(rng, shape, 34)
    cytoplasm = np.float32(rng.uniform(0.30, 0.52)) + np.float32(0.07) * smooth_field(rng, shape, 9)
    nests = regions.tumour | regions.glands
    np.copyto(eosin, cytoplasm, where=nests)
    haze[nests] += np.float32(rng.uniform(0.04, 0.16))
    eosin[regions.aggregates] *= np.float32(0.6)

    haematoxylin = np.maximum(haze, 0)
    _grow_nuclei(haematoxylin, rng, regions, phase, tissue)
    # A nucleus displaces most of the cytoplasm.
    eosin *= 1 - np.float32(0.45) * np.clip(haematoxylin, 0, 1)
    grain = 1 + np.float32(0.09) * smooth_field(rng, shape, 1.7)
    haematoxylin *= grain
    eosin *= grain
    filled = 1 - regions.gaps
    return Tissue(haematoxylin * filled, np.maximum(eosin, 0) * filled, regions.tumour)


def _lay_out(
    rng: np.random.Generator,
    shape: tuple[int, int],
    tumour_share: float,
    tissue: NDArray[np.bool_] | None,
    nest_px: float,
    gland_fill: float,
) -> _Regions:
    everywhere = np.ones(shape, np.bool_) if tissue is None else tissue
    gland_share = rng.uniform(0.05, 0.40)
    shadow_share = tumour_share if tumour_share > 0 else sample_tumour_share(rng)
    filled_share = tumour_share if tumour_share > 0 else gland_fill * shadow_share
    nest_share = filled_share + gland_share * (1 - filled_share)

    # Normal tissue keeps the field and its level ("where a tumour would be") for the reactive stroma.
    tumour_field = smooth_field(rng, shape, nest_px)
    level = level_of_share(tumour_field, shadow_share, everywhere)
    tumour = np.zeros(shape, np.bool_)
    eligible = everywhere
    if tumour_share > 0:
        tumour = (tumour_field > level) & everywhere
        eligible = everywhere & (tumour_field < level - _STROMA_STRIP)
    gland_field = smooth_field(rng, shape, _GLAND_PX)
    missing = (nest_share * everywhere.sum() - tumour.sum()) / max(int(eligible.sum()), 1)
    glands = eligible & (gland_field > level_of_share(gland_field, float(np.clip(missing, 0, 0.85)), eligible))

    # Clefts, vessels and fat in all tissue; lumina in the middle of glands and of tumour nests alike.
    hole_field = smooth_field(rng, shape, 20)
    gaps = soft_above(hole_field, level_of_share(hole_field, rng.uniform(0, 0.09)), 0.12)
    lumen_share = rng.uniform(0, 0.10)
    for nests in (glands, tumour):
        # The same field for both, or the shape of the lumina would tell the classes apart.
        lumina = soft_above(gland_field, level_of_share(gland_field, lumen_share, nests), 0.12)
        if nests is tumour:
            np.minimum(lumina, soft_above(tumour_field, level + 0.15, 0.15), out=lumina)
        np.maximum(gaps, lumina, out=gaps, where=nests)

    stroma = everywhere & ~glands & ~tumour
    aggregate_share = rng.uniform(0.02, 0.25) if rng.random() < 0.55 else 0.0
    aggregate_field = smooth_field(rng, shape, _AGGREGATE_PX)
    aggregates = stroma & (aggregate_field > level_of_share(aggregate_field, aggregate_share, stroma))

    activated = np.zeros(shape, np.float32)
    if tumour_share > 0 or rng.random() < 0.3:
        activated = soft_above(tumour_field, level - 0.6, 0.8)
    return _Regions(tumour, glands, aggregates, activated, gaps)


def _stroma(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Phase of the wavy fibres (they run along its contours) and the eosin of the stroma, ``(H, W)`` each."""
    angle, pitch_px = rng.uniform(0, np.pi), rng.uniform(9, 14)
    y, x = np.ogrid[: shape[0], : shape[1]]
    phase = (x * (np.cos(angle) / pitch_px) + y * (np.sin(angle) / pitch_px)).astype(np.float32)
    phase += np.float32(rng.uniform(1.5, 4.0)) * smooth_field(rng, shape, 85)
    phase += np.float32(0.35) * smooth_field(rng, shape, 16)
    ripple = np.abs(phase - np.floor(phase) - np.float32(0.5)) * 4 - 1
    eosin = np.float32(rng.uniform(0.42, 0.62)) + np.float32(0.10) * smooth_field(rng, shape, 26)
    eosin += np.float32(0.10) * ripple * np.clip(1 + smooth_field(rng, shape, 22), 0, 2)
    return phase, eosin


def _grow_nuclei(
    canvas: NDArray[np.float32],
    rng: np.random.Generator,
    regions: _Regions,
    phase: NDArray[np.float32],
    tissue: NDArray[np.bool_] | None,
) -> None:
    stroma = ~(regions.tumour | regions.glands | regions.aggregates)
    if tissue is not None:
        stroma &= tissue
    solid = regions.gaps < 0.5
    # Drawn in both classes, so that the random numbers that follow do not depend on the class.
    tumour_population, gland_population = _individual(rng, TUMOUR), _individual(rng, EPITHELIUM)

    for population, region in (
        (tumour_population, regions.tumour),
        (gland_population, regions.glands),
        (LYMPHOCYTE, regions.aggregates),
    ):
        if region.any():
            centres = scatter(rng, canvas.shape, population.spacing_px, _MARGIN_PX)
            draw_nuclei(canvas, rng, centres[_at(region & solid, centres)], population)

    centres = scatter(rng, canvas.shape, FIBROBLAST.spacing_px, _MARGIN_PX)
    centres = centres[_at(stroma & solid, centres)]
    centres = centres[rng.random(len(centres)) < rng.uniform(0.55, 0.9)]
    is_active = rng.random(len(centres)) < 0.6 * _at(regions.activated, centres)
    angles = _fibre_angles(phase, centres) + rng.normal(0, 0.25, len(centres)).astype(np.float32)
    draw_nuclei(canvas, rng, centres[~is_active], FIBROBLAST, angles[~is_active])
    draw_nuclei(canvas, rng, centres[is_active], ACTIVATED_FIBROBLAST, angles[is_active])

    centres = scatter(rng, canvas.shape, 3 * LYMPHOCYTE.spacing_px, _MARGIN_PX)
    centres = centres[_at(solid if tissue is None else solid & tissue, centres)]
    draw_nuclei(canvas, rng, centres[rng.random(len(centres)) < rng.uniform(0, 0.5)], LYMPHOCYTE)


def _individual(rng: np.random.Generator, population: Population) -> Population:
    """The population in one patient: other sizes and densities at the same covered share."""
    size, density = np.exp(rng.normal(0, (0.09, 0.10)))
    crowding = rng.uniform(0.88, 1.18)
    return replace(
        population,
        radius_px=population.radius_px * size,
        spacing_px=population.spacing_px * size * crowding,
        density=population.density * density,
    )


def _at(values: NDArray, centres: NDArray[np.float32]) -> NDArray:
    """Values ``(n,)`` at centres (x, y); centres beyond the edge read the edge."""
    x, y = np.round(centres).astype(int).T
    return values[np.clip(y, 0, values.shape[0] - 1), np.clip(x, 0, values.shape[1] - 1)]


def _fibre_angles(phase: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Direction of the fibres at centres (x, y), in radians: across the gradient of the phase."""
    right, down = np.asarray([[4, 0], [0, 4]], np.float32)
    gradient_x = _at(phase, centres + right) - _at(phase, centres - right)
    gradient_y = _at(phase, centres + down) - _at(phase, centres - down)
    return np.arctan2(gradient_x, -gradient_y).astype(np.float32)
