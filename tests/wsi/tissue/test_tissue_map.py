import math

import numpy as np
import pytest
from PIL import Image

from shared.synthetic import synthesize_slide, write_slide
from shared.wsi import Slide, TissueMap, find_tissue
from shared.wsi.tissue.tissue_map import tissue_mask_shape


def random_mask(height=23, width=31, seed=0, share=0.6):
    return np.random.default_rng(seed).random((height, width)) < share


def share_of_square(tissue, x, y, extent_px):
    """Over every mask pixel that the square touches, one by one; those outside are no tissue."""
    pixel_px = tissue.pixel_px
    columns = range(math.floor(x / pixel_px), max(math.ceil((x + extent_px) / pixel_px), math.floor(x / pixel_px) + 1))
    rows = range(math.floor(y / pixel_px), max(math.ceil((y + extent_px) / pixel_px), math.floor(y / pixel_px) + 1))
    height, width = tissue.mask.shape
    touched = [0 <= row < height and 0 <= column < width and tissue.mask[row, column] for row in rows for column in columns]
    return sum(touched) / len(touched)


def share_around(mask, column, row, side):
    """In the `side` x `side` mask pixels around one, which has the larger half before it where the side is even."""
    first = np.array([row, column]) - side // 2
    inside = 0
    for y in range(first[0], first[0] + side):
        for x in range(first[1], first[1] + side):
            inside += 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]
    return inside / side**2


@pytest.mark.parametrize(("pixel_px", "extent_px"), [(16.0, 64), (16.0, 100.0), (15.7, 112), (7.31, 40.3), (32.5, 5)])
def test_shares_against_a_loop(pixel_px, extent_px):
    tissue = TissueMap(random_mask(), pixel_px)
    rng = np.random.default_rng(1)
    # Also across each border of the slide and wholly beyond it, on either side.
    xys = rng.integers(-3 * extent_px, np.array([31, 23]) * pixel_px + 3 * extent_px, (300, 2))
    expected = [share_of_square(tissue, x, y, extent_px) for x, y in xys]
    assert 0.0 in expected
    assert max(expected) > 0.5
    assert tissue.shares(xys, extent_px) == pytest.approx(expected)


def test_shares_by_hand():
    tissue = TissueMap(np.array([[True, False, False], [True, True, False]]), 10.0)
    xys = np.array([[0, 0], [10, 0], [20, 0], [0, 10], [-10, -10], [25, 15], [5, 5]])
    # Squares of 20 px, of two or three mask pixels per side.
    assert tissue.shares(xys, 20.0) == pytest.approx([3 / 4, 1 / 4, 0, 2 / 4, 1 / 4, 0, 3 / 9])
    assert tissue.share == 0.5
    assert tissue.shares(np.empty((0, 2), np.int64), 20.0).shape == (0,)


@pytest.mark.parametrize("min_tissue", [0.01, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("pixel_px", "extent_px"), [(16.0, 112), (15.7, 64), (16.0, 4), (8.1, 56.0)])
def test_tile_centres_against_a_loop(pixel_px, extent_px, min_tissue):
    mask = random_mask(share=0.7)
    mask[5:15, 8:20] = True
    side = max(1, round(extent_px / pixel_px))
    expected = [
        (column, row)
        for row in range(mask.shape[0])
        for column in range(mask.shape[1])
        if share_around(mask, column, row, side) >= min_tissue - 1e-9
    ]
    found = TissueMap(mask, pixel_px).tile_centres(extent_px, min_tissue)
    assert [tuple(centre) for centre in found.tolist()] == expected
    assert expected


def test_centres_at_the_border_count_what_is_outside_as_glass():
    tissue = TissueMap(np.ones((6, 9), bool), 10.0)
    assert len(tissue.tile_centres(30.0, 1.0)) == 4 * 7
    # In a corner 4 of 9 pixels are inside, at an edge 6.
    assert len(tissue.tile_centres(30.0, 0.5)) == 6 * 9 - 4
    assert len(tissue.tile_centres(30.0, 4 / 9)) == 6 * 9


@pytest.fixture
def island():
    """Tissue of 12 x 20 mask pixels on glass, of 8.3 level-0 pixels each."""
    mask = np.zeros((37, 51), bool)
    mask[10:22, 15:35] = True
    return TissueMap(mask, 8.3)


def test_samples_follow_from_the_generator(island):
    first, again, other = (island.sample_tiles(np.random.default_rng(seed), 40, 33.2) for seed in (1, 1, 2))
    assert (first.shape, first.dtype) == ((40, 2), np.int64)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def middles(tissue, xys, extent_px):
    """The mask pixels (x, y) in which tiles are centred, to a level-0 pixel."""
    return (xys + extent_px / 2) / tissue.pixel_px


def test_every_place_once_while_there_are_enough(island):
    extent_px = 4 * island.pixel_px
    centres = {tuple(centre) for centre in island.tile_centres(extent_px, 0.5).tolist()}
    xys = island.sample_tiles(np.random.default_rng(0), len(centres), extent_px)
    # Places are rounded to whole pixels: a middle near a border of its mask pixel may fall into the next.
    pixels = np.floor(middles(island, xys, extent_px)).astype(int)
    exact = {tuple(pixel) for pixel in pixels.tolist()}
    assert len(exact) > 0.8 * len(centres)
    spread = middles(island, xys, extent_px) - np.array(sorted(centres)).mean(0) - 0.5
    assert np.abs(spread.mean(0)).max() < 0.2


def test_without_replacement_exactly():
    # Mask pixels of 1000 level-0 pixels: rounding cannot move a middle out of its own but once in 1000.
    mask = np.zeros((9, 9), bool)
    mask[2:7, 3:6] = True
    tissue = TissueMap(mask, 1000.0)
    assert len(tissue.tile_centres(1000, 1.0)) == 15
    few = tissue.sample_tiles(np.random.default_rng(0), 15, 1000, 1.0)
    assert len({tuple(p) for p in np.floor(middles(tissue, few, 1000)).astype(int).tolist()}) == 15
    many = tissue.sample_tiles(np.random.default_rng(0), 16, 1000, 1.0)
    assert many.shape == (16, 2)
    pixels = np.floor(middles(tissue, many, 1000)).astype(int)
    assert mask[pixels[:, 1], pixels[:, 0]].all()
    assert len(np.unique(many, axis=0)) == 16  # two in one mask pixel lie elsewhere in it


@pytest.mark.parametrize("min_tissue", [0.25, 0.5, 0.9])
def test_every_tile_holds_the_tissue_to_the_precision_of_the_mask(island, min_tissue):
    extent_px = 6 * island.pixel_px
    xys = island.sample_tiles(np.random.default_rng(0), 500, extent_px, min_tissue)
    # The true share of a tile, from the island's borders; a tile is up to half a mask pixel off its centre, each way.
    (left, top), (right, bottom) = np.array([15, 10]) * island.pixel_px, np.array([35, 22]) * island.pixel_px
    overlap = np.minimum(xys + extent_px, [right, bottom]) - np.maximum(xys, [left, top])
    shares = overlap.clip(min=0).prod(axis=1) / extent_px**2
    assert shares.min() >= min_tissue - 2 * 0.75 / 6
    assert shares.mean() > min_tissue


def test_no_place_for_a_tile(island):
    glass = TissueMap(np.zeros((5, 5), bool), 16.0)
    with pytest.raises(ValueError, match=r"no tile of 112 level-0 pixels contains 50% tissue; 0\.0% of the slide"):
        glass.sample_tiles(np.random.default_rng(0), 1, 112.0)
    with pytest.raises(ValueError, match=r"contains 90% tissue; 12\.7% of the slide is tissue\. Choose another tissue method"):
        island.sample_tiles(np.random.default_rng(0), 1, 20 * island.pixel_px, 0.9)


@pytest.fixture
def large():
    """More mask pixels than are looked through for a draw; tissue of random blocks, from the left border on."""
    blocks = np.random.default_rng(0).random((60, 60)) < 0.5
    blocks[:, 45:] = False
    return TissueMap(np.kron(blocks, np.ones((10, 10), bool)), 1000.0)


@pytest.mark.parametrize(("side", "min_tissue"), [(14, 0.5), (5, 1.0), (3, 0.25)])
def test_places_that_are_tried_are_those_that_are_found(large, side, min_tissue, monkeypatch):
    extent_px = side * large.pixel_px
    centres = {tuple(centre) for centre in large.tile_centres(extent_px, min_tissue).tolist()}
    assert len(centres) < large.mask.size / 2
    monkeypatch.setattr(TissueMap, "tile_centres", None)  # not used
    xys = large.sample_tiles(np.random.default_rng(0), 2000, extent_px, min_tissue)
    drawn = [tuple(pixel) for pixel in np.floor(middles(large, xys, extent_px)).astype(int).tolist()]
    # A place is rounded to one of 1000 level-0 pixels, and may so leave its mask pixel.
    assert len(set(drawn) & centres) >= 1990
    assert len(set(drawn)) >= 1990
    # As evenly as a draw from all of them: within 4 standard errors of their mean.
    everything = np.array(sorted(centres))
    assert np.abs(np.mean(drawn, axis=0) - everything.mean(0)).max() < 4 * everything.std(0).max() / math.sqrt(2000)


def test_each_place_alone(large):
    pixels = np.stack(np.meshgrid(np.arange(0, 600, 7), np.arange(0, 600, 11)), axis=-1).reshape(-1, 2)
    for side, min_tissue in ((14, 0.5), (5, 1.0), (40, 0.55)):
        centres = {tuple(centre) for centre in large.tile_centres(side * 1000.0, min_tissue).tolist()}
        expected = [tuple(pixel) in centres for pixel in pixels.tolist()]
        assert large._is_centre(pixels, side * 1000.0, min_tissue).tolist() == expected
        assert 0 < sum(expected) < len(expected)


@pytest.mark.parametrize("num_tiles", [10, 300])
def test_rare_places_of_a_large_mask_are_found(num_tiles):
    mask = np.zeros((600, 600), bool)
    mask[[0, -1], [0, -1]] = True  # the whole slide is their bounding box
    mask[300:312, 200:212] = True
    tissue = TissueMap(mask, 1000.0)
    xys = tissue.sample_tiles(np.random.default_rng(0), num_tiles, 1000.0, 1.0)
    pixels = np.floor(middles(tissue, xys, 1000)).astype(int)
    assert mask[pixels[:, 1].clip(0, 599), pixels[:, 0].clip(0, 599)].mean() > 0.98
    assert len(xys) == num_tiles
    with pytest.raises(ValueError, match="contains 50% tissue"):
        TissueMap(np.zeros((600, 600), bool), 16.0).sample_tiles(np.random.default_rng(0), 1, 112.0)


@pytest.mark.parametrize(("size", "mpp", "slide_mpp"), [((45, 70), 8.0, 16.0), ((45, 71), 8.0, 3.1), ((3, 70), 8.0, 0.5)])
def test_shape_of_a_mask_that_is_not_found(tmp_path, size, mpp, slide_mpp):
    image = np.full((*size, 3), 245, np.uint8)
    image[:, 20:50] = (190, 90, 160)
    write_slide(tmp_path / "slide.tif", image)
    with Slide(tmp_path / "slide.tif", mpp=slide_mpp) as opened:
        assert tissue_mask_shape(opened, mpp) == find_tissue(opened, mpp).mask.shape


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    synthetic = synthesize_slide(3, 0.3, (610, 830), with_fold=False, with_pen=False)
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    write_slide(path, synthetic.image)
    return path, synthetic.tissue


@pytest.mark.parametrize("method", ["otsu", "white", "hsv"])
def test_tissue_of_a_slide(slide, method):
    path, truth = slide
    with Slide(path) as opened:
        tissue = find_tissue(opened, mpp=4.0, method=method)
    # 830 px of 0.5 um are ceil(103.75) mask pixels, not quite 4 um each.
    assert tissue.mask.shape == (round(610 / 830 * 104), 104)
    assert tissue.pixel_px == 830 / 104
    true_mask = np.asarray(Image.fromarray(truth).resize(tissue.mask.shape[::-1], Image.Resampling.NEAREST))
    overlap = (tissue.mask & true_mask).sum() / (tissue.mask | true_mask).sum()
    assert overlap > 0.85
    # In the right place: moved by two pixels either way, it fits worse.
    for axis in (0, 1):
        for step in (-2, 2):
            moved = np.roll(tissue.mask, step, axis)
            assert (moved & true_mask).sum() / (moved | true_mask).sum() < overlap


def test_sampled_tiles_lie_on_the_tissue(slide):
    path, truth = slide
    with Slide(path) as opened:
        xys = find_tissue(opened, mpp=4.0).sample_tiles(np.random.default_rng(0), 50, 56.0, 0.5)
    padded = np.pad(truth, 56)
    shares = [padded[y + 56 : y + 112, x + 56 : x + 112].mean() for x, y in xys]
    assert min(shares) > 0.35
    assert np.mean(shares) > 0.7


def test_coarse_slides_are_taken_as_they_are(tmp_path):
    image = np.full((45, 70, 3), 245, np.uint8)
    image[10:30, 20:50] = (190, 90, 160)
    write_slide(tmp_path / "coarse.tif", image)
    with Slide(tmp_path / "coarse.tif", mpp=16.0) as opened:
        tissue = find_tissue(opened, mpp=8.0)
    assert (tissue.mask.shape, tissue.pixel_px) == ((45, 70), 1.0)
    assert tissue.mask[12:28, 22:48].all()


def test_needs_the_size_of_a_pixel(tmp_path):
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(tmp_path / "tile.png")
    with Slide(tmp_path / "tile.png") as opened, pytest.raises(ValueError, match="does not state its pixel size"):
        find_tissue(opened)
    with Slide(tmp_path / "tile.png", mpp=0.5) as opened:
        assert find_tissue(opened).pixel_px == pytest.approx(40 / 3)


def test_unknown_method(slide):
    with Slide(slide[0]) as opened, pytest.raises(ValueError, match="otsu, white, hsv, saturation; got 'otso'"):
        find_tissue(opened, method="otso")
