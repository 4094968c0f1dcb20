"""Masks of two and three pathologists."""

import numpy as np
import pytest

from shared.data.labels.consensus import consensus_mask


def drawn(*boxes):
    mask = np.zeros((20, 30), np.uint8)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = 255
    return mask


def test_each_region_is_agreed_on_or_decided_by_itself():
    """9 of 10 columns, 8 of 10 (not more than 80 %), and a region of one mask alone."""
    first = drawn((0, 0, 4, 10), (8, 0, 4, 10), (16, 20, 2, 2))
    second = drawn((0, 0, 4, 9), (8, 0, 4, 8))
    alone = consensus_mask(first, second)
    assert alone[1:] == (1, 0, 2)
    np.testing.assert_array_equal(alone.mask, drawn((0, 0, 4, 9)) > 0)
    # More than half of the second region, exactly half of the third.
    decided = consensus_mask(first, second, drawn((8, 0, 4, 6), (16, 20, 2, 1)))
    assert decided[1:] == (1, 2, 0)
    np.testing.assert_array_equal(decided.mask, drawn((0, 0, 4, 9), (8, 0, 4, 10)) > 0)
    # What the third mask shows elsewhere, and where the two agree, changes nothing.
    np.testing.assert_array_equal(consensus_mask(first, second, drawn((0, 15, 5, 5))).mask, alone.mask)


def test_the_same_masks_and_empty_ones():
    mask = drawn((3, 3, 5, 5))
    np.testing.assert_array_equal(consensus_mask(mask, mask).mask, mask > 0)
    assert consensus_mask(drawn(), drawn())[1:] == (0, 0, 0)


@pytest.mark.parametrize(
    ("masks", "overlap", "problem"),
    [
        ((drawn(), drawn()[:5]), 0.8, r"of one shape; found \(5, 30\), \(20, 30\)"),
        ((drawn(), drawn(), drawn()[None]), 0.8, "of one shape"),
        ((None, drawn()), 0.8, r"of one shape; found \(\), \(20, 30\)"),
        ((drawn(), drawn()), 1, r"in \[0, 1\); got 1"),
    ],
)
def test_what_is_refused(masks, overlap, problem):
    with pytest.raises(ValueError, match=problem):
        consensus_mask(*masks, least_overlap=overlap)
