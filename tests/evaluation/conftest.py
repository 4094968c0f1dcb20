"""Generated slides whose tumour is painted, and a network that finds the paint."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from shared.data import TissueCache, load_manifest
from shared.evaluation import MapEvaluation
from shared.inference import SlideMapper
from shared.synthetic import DemoPlan, SlidePlan, write_demo, write_slide
from tests.engines.conftest import records  # noqa: F401
from tests.inference.flat_options import grouped

from .map_reference import ALPHA, METHOD, THRESHOLD

PAINT = (70, 30, 120)


class PaintFinder(nn.Module):
    """Ten logits for the share of pixels like PAINT, less five: one a tile, or dense, one for each `stride` px."""

    def __init__(self, stride=None):
        super().__init__()
        self.stride = stride
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, tiles):
        distance = (tiles.float() - torch.tensor(PAINT)[:, None, None]).norm(dim=1, keepdim=True)
        like = (distance < 40).float()
        share = like.mean(dim=(2, 3)) if self.stride is None else nn.functional.avg_pool2d(like, self.stride)
        return (share - 0.5) * self.scale


@pytest.fixture
def paint_finder():
    return PaintFinder


# (height, width): prime widths, so that no middle of a map pixel lies on a border between pixels of the tissue mask.
COHORT = (
    SlidePlan("test", 0.35, (610, 829)),
    SlidePlan("test", 0.0, (571, 797)),
    SlidePlan("test", 0.25, (630, 773)),
    SlidePlan("test", 0.0, (590, 811)),
)


@pytest.fixture(scope="session")
def cohort_records(tmp_path_factory):
    """Four generated slides of 0.5 um, two with tumour, which is painted."""
    folder = write_demo(tmp_path_factory.mktemp("cohort") / "demo", DemoPlan(images={}, slides=COHORT))
    painted = load_manifest(folder / "slides.csv")
    for record in painted:
        mask = np.asarray(Image.open(record["mask"])) > 0
        image = tifffile.imread(record["image"], key=0)
        image[mask] = PAINT
        write_slide(record["image"], image)
    return painted


@pytest.fixture
def cohort(cohort_records):
    """Records that a test may change."""
    return [dict(record) for record in cohort_records]


@pytest.fixture
def tissue(tmp_path):
    return TissueCache(tmp_path / "tissue")


@pytest.fixture
def evaluation(tissue, paint_finder):
    def make(folder, slides, network=None, alpha=ALPHA, num_examples=3, truth="mask", normal_is_zero=None, **options):
        options = {
            "mpp": 1.0,
            "tile_size_px": 32,
            "margin_px": 8,
            "threshold": THRESHOLD,
            "device": "cpu",
            "amp": False,
        } | options
        mapper = SlideMapper(network or paint_finder(), **grouped(**options))
        zero = {} if normal_is_zero is None else {"normal_is_zero": normal_is_zero}
        return MapEvaluation(folder, slides, mapper, tissue, alpha, METHOD, num_examples, truth=truth, **zero)

    return make
