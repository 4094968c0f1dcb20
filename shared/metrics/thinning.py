"""Thinning of lines, in time that grows with their pixels and not with the image."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

# (row, column) steps to the eight neighbours, from the right against the clock: x1 to x8 of Guo and Hall.
_NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def thin_pixels(pixels: NDArray[np.integer], canvas: NDArray[np.uint8]) -> NDArray[np.integer]:
    """The same result as `skimage.morphology.thin`, computed only at the image's set pixels.

    Args:
        pixels: of the image, as positions in `canvas.ravel()`, none of them at its frame.
        canvas: ``(H + 2, W + 2)``, zero, and zero again afterwards: the image with a frame of one pixel.

    Returns:
        those of the pixels that are left, in their order.

    Reference:
        Guo & Hall, Communications of the ACM 1989, as MATLAB's bwmorph states it.
    """
    steps = [dy * canvas.shape[1] + dx for dy, dx in _NEIGHBOURS]
    flat, left, num_before = canvas.ravel(), pixels, -1
    flat[left] = 1
    while len(left) != num_before:
        num_before = len(left)
        for is_removed in _removed():
            codes = flat[left + steps[0]]
            for bit, step in enumerate(steps[1:], start=1):
                codes |= flat[left + step] << bit
            is_gone = is_removed[codes]
            flat[left[is_gone]] = 0
            left = left[~is_gone]
    flat[left] = 0
    return left


@functools.cache
def _removed() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether a pixel is removed in each of the two passes: ``(256,)``, by its neighbours x1 to x8 as bits 0 to 7."""
    x1, x2, x3, x4, x5, x6, x7, x8 = ((np.arange(256) >> bit & 1).astype(bool) for bit in range(8))
    triples = ((x1, x2, x3), (x3, x4, x5), (x5, x6, x7), (x7, x8, x1))
    num_crossings = np.sum([~a & (b | c) for a, b, c in triples], axis=0)
    num_neighbours = np.minimum(
        np.sum([x1 | x2, x3 | x4, x5 | x6, x7 | x8], axis=0), np.sum([x2 | x3, x4 | x5, x6 | x7, x8 | x1], axis=0)
    )
    may_go = (num_crossings == 1) & (num_neighbours >= 2) & (num_neighbours <= 3)
    return may_go & ~((x2 | x3 | ~x8) & x1), may_go & ~((x6 | x7 | ~x4) & x5)
