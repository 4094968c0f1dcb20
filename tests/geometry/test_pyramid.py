import math

import pytest

from shared.geometry import is_reduction, level_downsamples, mpp_to_downsample, nearest_finer_level, snap_downsample


def test_level_downsample_is_the_mean_of_both_sides():
    # 4443 / 2221 = 2.000450, 3567 / 1783 = 2.000561: the TCGA slide's.
    assert level_downsamples([(4443, 3567), (2221, 1783)]) == (1.0, pytest.approx(2.0005055, abs=1e-7))


ROUNDINGS = pytest.mark.parametrize("rounded", [math.floor, math.ceil, round], ids=lambda rounded: rounded.__name__)


@ROUNDINGS
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size_px", [(1500, 40000), (40001, 1499), (2081, 36011), (777, 100003)])
def test_levels_of_a_core_biopsy_are_smaller_by_the_factor_that_made_them(rounded, factor, size_px):
    """The short side is rounded by up to a pixel of few, and the mean of both ratios is as far off along the long one."""
    sizes = [size_px]
    while min(sizes[-1]) > 16:
        sizes.append(tuple(rounded(side / factor) for side in sizes[-1]))
    found = level_downsamples(sizes)
    for level, (downsample, level_size) in enumerate(zip(found, sizes, strict=True)):
        # In pixels of the level, at the far end; what was rounded, and half a pixel.
        assert abs(max(size_px) / downsample - max(size_px) / factor**level) < 1.5, level_size
    assert found[-1] == factor ** (len(sizes) - 1)


def test_a_level_of_any_other_factor_has_the_ratio_of_the_longer_side():
    # 1500 / 441 = 3.4014, 40000 / 11765 = 3.39992, the mean 3.40064: 2.5 px of the level less than 11765.
    assert level_downsamples([(1500, 40000), (441, 11765)])[1] == pytest.approx(40000 / 11765)
    # Three times, and the mean of 3.006 and 3.00007 is not.
    assert level_downsamples([(1500, 40000), (499, 13333)])[1] == 3


@ROUNDINGS
@pytest.mark.parametrize("factor", [2, 4, 1.7])
@pytest.mark.parametrize("size_px", [(46001, 32913), (1023, 517), (97792, 221184)])
def test_sides_that_are_rounded_again_and_again_are_a_reduction(rounded, factor, size_px):
    level = size_px
    while min(level) > 3:
        level = tuple(rounded(side / factor) for side in level)
        assert is_reduction(size_px, level), level


@pytest.mark.parametrize(
    ("size_px", "level_size_px"),
    [
        ((1100, 700), (768, 512)),
        # Halves that were padded to whole tiles of 512 px.
        ((97792, 221184), (49152, 110592)),
        ((97792, 221184), (512, 1024)),
        ((46000, 32914), (1280, 431)),  # a photo of the whole glass
        ((1100, 700), (550, 352)),
    ],
)
def test_sides_of_different_ratios_are_no_reduction(size_px, level_size_px):
    assert not is_reduction(size_px, level_size_px)


@pytest.mark.parametrize(("mpp", "slide_mpp", "expected"), [(0.5, 0.25, 2.0), (0.25, 0.5, 0.5), (0.5, 0.375, 4 / 3)])
def test_downsample_of_a_pixel_size(mpp, slide_mpp, expected):
    assert mpp_to_downsample(mpp, slide_mpp) == pytest.approx(expected)


@pytest.mark.parametrize("mpp", [0.0, -0.5, math.nan, math.inf])
def test_rejects_impossible_pixel_sizes(mpp):
    with pytest.raises(ValueError, match=f"slide_mpp must be a positive number .* got {mpp}"):
        mpp_to_downsample(0.5, mpp)


@pytest.mark.parametrize(
    ("downsample", "level"),
    [(0.5, 0), (1.0, 0), (1.9, 0), (1.97, 1), (2.0, 1), (3.99, 2), (15.0, 2), (64.0, 3)],
)
def test_nearest_finer_level_of_an_uneven_pyramid(downsample, level):
    assert nearest_finer_level([1.0, 2.0005, 4.0, 16.0], downsample) == level


def test_level_order_does_not_matter():
    assert nearest_finer_level([1.0, 16.0, 4.0], 5.0) == 2


def test_snaps_within_the_tolerance_only():
    levels = [1.0, 2.0005]
    assert snap_downsample(levels, 0.499 / 0.5) == 1.0
    assert snap_downsample(levels, 2.03) == 2.0005
    assert snap_downsample(levels, 2.05) == 2.05
