"""Ceilings are what true labels score: counted with NumPy from the masks themselves."""

import numpy as np
import pytest
from PIL import Image

from scripts.comparison.ceilings import INSTANCES_PER_SIDE
from scripts.comparison.scoring import MapScorer
from shared.data import TissueCache


@pytest.mark.parametrize("name", ["true_labels", "true_instances"])
def test_against_blocks_of_the_masks(data, tmp_path, name):
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
