"""Textures against loops over pixels and against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.feature import graycomatrix, graycoprops

from shared.networks.layers.texture_maps import cooccurrence_maps, local_binary_patterns

RING = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]


@pytest.mark.parametrize("radius", [1, 2])
def test_patterns_pixel_by_pixel(radius):
    # Few values, so that neighbours are often equal.
    grey = np.random.default_rng(0).integers(0, 4, (9, 12))
    patterns = local_binary_patterns(torch.from_numpy(grey).float()[None, None], radius)[0, 0]
    for row in range(radius, 9 - radius):
        for column in range(radius, 12 - radius):
            bits = [int(grey[row + radius * down, column + radius * right] >= grey[row, column]) for down, right in RING]
            changes = sum(bits[index] != bits[index - 1] for index in range(8))
            assert patterns[row, column] == (sum(bits) if changes <= 2 else 9)


def test_patterns_do_not_see_quarter_turns_and_brightness():
    grey = torch.rand(1, 1, 10, 14, generator=torch.Generator().manual_seed(0))
    patterns = local_binary_patterns(grey, 2)
    torch.testing.assert_close(local_binary_patterns(grey.rot90(dims=(2, 3)), 2), patterns.rot90(dims=(2, 3)))
    torch.testing.assert_close(local_binary_patterns(0.5 * grey + 3, 2), patterns)
    assert (local_binary_patterns(torch.ones(1, 1, 6, 6), 2) == 8).all()


@pytest.mark.parametrize("distance", [1, 3])
def test_pairs_as_in_a_cooccurrence_matrix(distance):
    """Means over the inner pixels, whose partners all lie in the image."""
    levels = np.random.default_rng(1).integers(0, 16, (20, 26), dtype=np.uint8)
    inner = slice(distance, -distance)
    maps = cooccurrence_maps(torch.from_numpy(levels).float()[None, None], distance)[0][:, inner, inner]
    matrix = np.zeros((16, 16))
    for down, right in RING:
        first = levels[inner, inner].ravel()
        rows, columns = (np.arange(distance, length - distance) for length in levels.shape)
        second = levels[np.ix_(rows + distance * down, columns + distance * right)].ravel()
        # A row of a matrix of two columns is one pair.
        pairs = np.stack([first, second], axis=1)
        matrix += graycomatrix(pairs, [1], [0], levels=16, symmetric=True)[:, :, 0, 0]
    matrix = (matrix / matrix.sum())[:, :, None, None]
    means = maps.mean(dim=(1, 2)).double().numpy()
    for index, name in enumerate(("contrast", "dissimilarity", "homogeneity")):
        assert means[index] == pytest.approx(graycoprops(matrix, name)[0, 0], rel=1e-5)
    product, level, squares = means[3:]
    correlation = (product - level**2) / (squares - level**2)
    assert correlation == pytest.approx(graycoprops(matrix, "correlation")[0, 0], abs=1e-4)
