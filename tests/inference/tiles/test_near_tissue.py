import numpy as np

from shared.inference.tiles.near_tissue import NearTissue


def white(tissue):
    return np.full((*tissue.shape, 3), 255, np.uint8)


def test_what_is_further_than_50_um_from_tissue_is_cut():
    tissue = np.zeros((9, 12), bool)
    tissue[4, 5] = True
    near = NearTissue.of(tissue, white(tissue), factor=2, cell_um=20.0)
    rows, columns = np.mgrid[:9, :12]
    np.testing.assert_array_equal(near.cells, 20 * np.hypot(rows - 4, columns - 5) <= 50)
    # Rows 0 to 5 and columns 13 to 18 of the map; each cell is two of them wide and high.
    core = near.keep(np.full((3, 6, 6), 7, np.uint8), top=0, left=13)
    expected = near.cells.repeat(2, axis=0).repeat(2, axis=1)[:6, 13:19] * np.uint8(7)
    np.testing.assert_array_equal(core, [expected] * 3)
    assert 0 < expected.mean() < 7


def test_a_lumen_stays_and_a_map_without_glass_is_not_looked_at():
    tissue = np.ones((20, 20), bool)
    tissue[8:12, 8:12] = False
    assert NearTissue.of(tissue, white(tissue), factor=1, cell_um=25.0) is None
    assert NearTissue.of(tissue, white(tissue), factor=1, cell_um=26.0) is not None


def test_what_the_mask_leaves_out_but_is_not_white_stays():
    """Such as a strand of tissue that is thinner than the mask can see."""
    nothing, rgb = np.zeros((20, 20), bool), np.full((20, 20, 3), 240, np.uint8)
    rgb[10, 3] = (235, 205, 225)
    near = NearTissue.of(nothing, rgb, factor=1, cell_um=25.0)
    np.testing.assert_array_equal(np.argwhere(near.cells)[[0, -1]], [[8, 3], [12, 3]])


def test_cells_that_are_larger_than_the_margin_have_their_neighbours():
    tissue = np.zeros((5, 5), bool)
    tissue[2, 2] = True
    near = NearTissue.of(tissue, white(tissue), factor=1, cell_um=60.0)
    np.testing.assert_array_equal(near.cells, np.pad(np.ones((3, 3), bool), 1))


def test_the_last_cell_may_be_shorter_than_its_pixels():
    """A map of 7 pixels has 2 cells of 4; a core reaches beyond it to pixel 10."""
    near = NearTissue(np.array([[True, False]]), factor=4)
    core = near.keep(np.full((1, 1, 10), 9, np.uint8), top=0, left=0)
    assert core.tolist() == [[[9] * 4 + [0] * 6]]
