"""Patches centred on components whose centres are known, and k-means against the best split of a line."""

import itertools

import numpy as np
import pytest

from shared.data import centred_patches, num_centres
from shared.data.patches import centred_patches as MODULE
from shared.data.patches.centred_patches import CentredPatch, patch_corner

SIDE = 8


def mask_of(*rectangles, shape=(60, 100)):
    """Class indices from (class, left, top, width, height)."""
    mask = np.zeros(shape, np.uint8)
    for index, left, top, width, height in rectangles:
        mask[top : top + height, left : left + width] = index
    return mask


@pytest.mark.parametrize(("area", "expected"), [(1, 2), (128**2, 2), (128**2 + 1, 3), (2 * 128**2, 3), (2 * 128**2 + 1, 4)])
def test_number_of_centres(area, expected):
    assert num_centres(area, 128**2) == expected


def test_one_patch_in_the_middle_of_each_component():
    mask = mask_of((2, 10, 20, 8, 8), (1, 40, 5, 3, 4))
    # Middles of the rectangles: pixel edges, not pixel centres.
    assert centred_patches(mask, SIDE) == [CentredPatch(41.5, 7.0, 1, 12), CentredPatch(14.0, 24.0, 2, 64)]


def test_an_area_equal_to_the_patch_is_not_split_and_one_more_pixel_is():
    assert len(centred_patches(mask_of((1, 0, 0, 8, 8)), SIDE)) == 1
    # 8 x 8 in another shape; 13 x 5 is 64 + 1.
    assert len(centred_patches(mask_of((1, 0, 0, 16, 4)), SIDE)) == 1
    assert len(centred_patches(mask_of((1, 0, 0, 13, 5)), SIDE)) == 3


def test_an_l_is_centred_on_its_centroid_even_outside_it():
    # Two arms of 2 x 10 px that share a 2 x 2 corner: 36 px.
    mask = mask_of((3, 50, 30, 2, 10), (3, 50, 38, 10, 2))
    x = (20 * 51 + 16 * 56) / 36
    y = (20 * 35 + 16 * 39) / 36
    (patch,) = centred_patches(mask, SIDE)
    assert patch == (pytest.approx(x), pytest.approx(y), 3, 36)
    assert mask[int(patch.y), int(patch.x)] == 0


def test_components_are_those_of_one_class_and_join_at_corners():
    touching = mask_of((1, 10, 10, 4, 4), (2, 14, 10, 4, 4))
    assert [(patch.label, patch.x) for patch in centred_patches(touching, SIDE)] == [(1, 12.0), (2, 16.0)]
    at_a_corner = mask_of((1, 10, 10, 4, 4), (1, 14, 14, 4, 4))
    assert centred_patches(at_a_corner, SIDE) == [CentredPatch(14.0, 14.0, 1, 32)]


def test_three_centres_of_a_bar_split_it_evenly():
    patches = centred_patches(mask_of((1, 3, 7, 65, 1)), SIDE)
    places = np.arange(65)

    def spread(ends):
        return sum(((part - part.mean()) ** 2).sum() for part in np.split(places, ends))

    best = min(spread(ends) for ends in itertools.combinations(range(1, 65), 2))
    centres = np.array([patch.x for patch in patches]) - 3.5
    found = ((places[:, None] - centres) ** 2).min(axis=1).sum()
    assert {patch.y for patch in patches} == {7.5}
    assert {(patch.label, patch.component_px) for patch in patches} == {(1, 65)}
    assert found <= 1.02 * best


def test_a_large_component_is_covered():
    mask = mask_of((2, 20, 10, 60, 40))
    patches = centred_patches(mask, SIDE)
    assert len(patches) == 1 + -(-60 * 40 // 64)
    rows, columns = np.nonzero(mask)
    distances = np.hypot(*(np.stack([columns, rows], 1)[:, None] + 0.5 - [[p.x, p.y] for p in patches]).transpose(2, 0, 1))
    nearest = np.bincount(distances.argmin(axis=1), minlength=len(patches))
    # About equal areas, whose pixels lie in the patch of their centre.
    assert nearest.min() > 0.5 * nearest.mean()
    assert nearest.max() < 1.6 * nearest.mean()
    assert distances.min(axis=1).max() < SIDE


def test_many_pixels_are_thinned_out(monkeypatch):
    mask = mask_of((1, 10, 10, 80, 40))
    monkeypatch.setattr(MODULE, "_MOST_PIXELS", 300)
    monkeypatch.setattr(MODULE, "_PIXELS_PER_CENTRE", 10)
    patches = centred_patches(mask, 24)
    assert len(patches) == 1 + -(-80 * 40 // 24**2)
    assert patches == centred_patches(mask, 24)
    assert patches != centred_patches(mask, 24, seed=1)
    # The centre of the centres is that of the component.
    assert np.mean([(p.x, p.y) for p in patches], axis=0) == pytest.approx([50, 30], abs=2.5)


def test_by_box_as_released():
    # 40 px in a line: fewer than the patch has, but longer than it. Its box of 40 px asks for two centres.
    line = mask_of((1, 10, 10, 40, 1))
    assert len(centred_patches(line, SIDE)) == 1
    assert [p.x for p in centred_patches(line, SIDE, size_by="box")] == pytest.approx([20, 40], abs=1)
    # An L whose box of 10 x 10 asks for three; and a square of the patch's side, which is not split.
    assert len(centred_patches(mask_of((1, 10, 10, 2, 10), (1, 10, 18, 10, 2)), SIDE, size_by="box")) == 3
    assert len(centred_patches(mask_of((1, 10, 10, 8, 8)), SIDE, size_by="box")) == 1


def test_no_more_centres_than_pixels():
    assert len(centred_patches(mask_of((1, 10, 10, 2, 1)), 1)) == 2
    diagonal = np.eye(30, dtype=np.uint8)
    assert len(centred_patches(diagonal, 4, size_by="box")) == 30


def test_nothing_annotated():
    assert centred_patches(np.zeros((5, 5), np.uint8), SIDE) == []
    assert centred_patches(np.ones((1, 1), bool), SIDE) == [CentredPatch(0.5, 0.5, 1, 1)]


def test_rejects_what_is_no_mask():
    with pytest.raises(ValueError, match=r"float64 \(4, 4\), patch_size_px=8"):
        centred_patches(np.zeros((4, 4)), SIDE)
    with pytest.raises(ValueError, match="patch_size_px=0"):
        centred_patches(np.zeros((4, 4), np.uint8), 0)
    with pytest.raises(ValueError, match="size_by must be one of area, box, got 'bbox'"):
        centred_patches(np.zeros((4, 4), np.uint8), SIDE, size_by="bbox")


@pytest.mark.parametrize(
    ("centre", "corner"),
    [((20.0, 30.0), (256, 416)), ((1.0, 30.0), (0, 416)), ((62.0, 47.5), (872, 640)), ((20.03, 30.0), (256, 416))],
)
def test_corner_on_the_slide(centre, corner):
    # 128 level-0 px on a slide of 1000 x 768 px, a mask pixel for 16 x 16: 20 * 16 - 64 = 256.
    assert patch_corner(CentredPatch(*centre, 1, 1), 128, 16.0, (1000, 768)) == corner


def test_a_slide_smaller_than_the_patch():
    assert patch_corner(CentredPatch(3.0, 2.0, 1, 1), 128, 16.0, (100, 60)) == (0, 0)
