from dataclasses import replace

import numpy as np
import pytest

from shared.synthetic.nuclei import EPITHELIUM, LYMPHOCYTE, TUMOUR, draw_nuclei, scatter


def areas(population, seed):
    """Pixels of 200 nuclei, each drawn alone, inside the middle of the soft edge."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((20 * 64, 10 * 64), np.float32)
    y, x = np.mgrid[32 : 20 * 64 : 64, 32 : 10 * 64 : 64]
    draw_nuclei(canvas, rng, np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32), population)
    return (canvas.reshape(20, 64, 10, 64) > 0.5).sum(axis=(1, 3)).ravel()


def test_radius_without_spread_gives_the_ellipse_area():
    still = {"radius_spread": 0, "aspect_spread": 0, "density_spread": 0, "irregularity": 0}
    flat = {"chromatin": 0, "vesicular": 0, "nucleolus": 0, "density": 1.0}
    plain = replace(EPITHELIUM, radius_px=8.0, aspect=1.3, **still, **flat)
    assert areas(plain, 0).mean() == pytest.approx(np.pi * 8**2, rel=0.03)


def test_tumour_nuclei_are_larger_but_overlap():
    tumour, epithelium, lymphocyte = (
        areas(replace(population, density=2.0), 1) for population in (TUMOUR, EPITHELIUM, LYMPHOCYTE)
    )
    assert np.median(lymphocyte) < np.median(epithelium) < np.median(tumour)
    assert np.percentile(tumour, 5) < np.percentile(epithelium, 95)


def test_tumour_and_epithelium_cover_about_the_same_share():
    covered = []
    for population in (TUMOUR, EPITHELIUM):
        rng = np.random.default_rng(2)
        canvas = np.zeros((400, 400), np.float32)
        draw_nuclei(canvas, rng, scatter(rng, canvas.shape, population.spacing_px, 24), population)
        covered.append((canvas > 0.1).mean())
    assert covered[0] == pytest.approx(covered[1], abs=0.08)


def test_lattice_has_its_density_and_passes_the_edges():
    centres = scatter(np.random.default_rng(0), (300, 500), 10.0, 20)
    x, y = centres.T
    inside = (x >= 0) & (x < 500) & (y >= 0) & (y < 300)
    assert inside.sum() == pytest.approx(300 * 500 / (10 * 8.66), rel=0.03)
    assert x.min() < 0
    assert y.max() > 300


def test_nuclei_over_the_edges_are_cut_off():
    canvas = np.zeros((40, 50), np.float32)
    corners = np.asarray([[0, 0], [49, 39], [-100, 5], [25, 200]], np.float32)
    draw_nuclei(canvas, np.random.default_rng(0), corners, replace(EPITHELIUM, irregularity=0, vesicular=0))
    assert canvas[0, 0] > 0.3
    assert canvas[-1, -1] > 0.3
    assert canvas[15:25, 20:30].max() == 0


def test_no_nuclei():
    canvas = np.zeros((8, 8), np.float32)
    draw_nuclei(canvas, np.random.default_rng(0), np.zeros((0, 2), np.float32), TUMOUR)
    assert canvas.max() == 0
