"""Ceilings are what true labels score: counted with NumPy from the masks themselves."""

import numpy as np
import pytest
from PIL import Image

from scripts.comparison.scores.ceilings import INSTANCES_PER_SIDE, CeilingGrid
from scripts.comparison.scores.scoring import MapScorer
from shared.data import TissueCache
from shared.evaluation.maps import scoring_grid


@pytest.mark.parametrize("strip_px", [96 * 96, 96 * 7])
@pytest.mark.parametrize("name", ["true_labels", "true_instances"])
def test_against_blocks_of_the_masks(data, tmp_path, monkeypatch, name, strip_px):
    monkeypatch.setattr(scoring_grid, "_STRIP_GRID_PX", strip_px)
    scorer = MapScorer(data, 0.5, TissueCache(tmp_path))
    scores = scorer.ceiling(name, tmp_path / "scores.npz")
    for record, found in zip(data.records, scores.counts, strict=True):
        mask = np.asarray(Image.open(record["mask"])) > 0
        cells = 1 if name == "true_labels" else INSTANCES_PER_SIDE
        blocks = mask.reshape(cells, 96 // cells, cells, 96 // cells)
        painted = np.broadcast_to(blocks.any(axis=(1, 3), keepdims=True), blocks.shape).reshape(96, 96)
        expected = [(painted & mask).sum(), (painted & ~mask).sum(), (~painted & mask).sum(), (~painted & ~mask).sum()]
        assert found.tolist() == expected
    # Nothing that has tumour is missed, and they are kept.
    assert scores.counts[:, 2].sum() == 0
    written = (tmp_path / "scores.npz").stat().st_mtime_ns
    scorer.ceiling(name, tmp_path / "scores.npz")
    assert (tmp_path / "scores.npz").stat().st_mtime_ns == written


def test_never_more_of_a_mask_is_held_than_a_strip(data, monkeypatch):
    """Of an image with a label nothing at all, of cells 7 rows at a time; painted are the rows that are asked for."""
    monkeypatch.setattr(scoring_grid, "_STRIP_GRID_PX", 96 * 7)
    heights, read_truth = [], scoring_grid.read_truth

    def watched(record, xy, size_px, *arguments):
        heights.append(size_px[1])
        return read_truth(record, xy, size_px, *arguments)

    monkeypatch.setattr(scoring_grid, "read_truth", watched)
    record = next(record for record in data.records if record["label"])
    row = {"width_px": "96", "height_px": "96", "mpp": "0.5"}
    labelled = CeilingGrid(record, row, 1.0, (96, 96)).decisions(None, 90, 4)
    assert (labelled.shape, labelled.dtype, labelled.min(), heights) == ((1, 4, 96), np.uint8, 255, [])
    # Cells of which no edge is one of a strip.
    grid = CeilingGrid(record, row, 1.0, (96, 96), cell_px=(40.0, 20.0))
    painted = grid.decisions(None, 30, 20)[0]
    assert heights == [7] * 13 + [5]
    mask = np.asarray(Image.open(record["mask"])) > 0
    for x in range(0, 96, 20):
        for rows, cells in ((painted[:10], mask[:40]), (painted[10:], mask[40:80])):
            assert (rows[:, x : x + 20] == 255 * cells[:, x : x + 20].any()).all()
