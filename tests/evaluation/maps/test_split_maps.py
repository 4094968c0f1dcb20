"""The maps of a split, made by one process and by several together."""

import orjson
import pytest
import torch

from shared.data import TissueCache
from shared.evaluation import SplitMaps
from shared.inference import Compute, SlideMapper, Tiles
from tests.engines.conftest import in_processes


@pytest.fixture
def split_maps(cohort, paint_finder, tmp_path):
    def make(name):
        tiles, compute = Tiles(tile_size_px=32, margin_px=0), Compute(device="cpu", amp=False)
        mapper = SlideMapper(paint_finder(), mpp=1.0, tiles=tiles, compute=compute)
        return SplitMaps(tmp_path / name, cohort, mapper, TissueCache(tmp_path / "tissue"))

    return make


def workers_of(maps):
    """Which process mapped each slide."""
    rows = [orjson.loads(path.read_bytes()) for path in sorted((maps.folder / "maps/rows").glob("*.json"))]
    assert [row["status"] for row in rows] == ["ok"] * len(rows)
    return {row["slide"]: row["worker"] for row in rows}


@pytest.mark.parametrize("world", [2, 5])
def test_each_slide_is_mapped_once_by_whoever_is_free(split_maps, cohort, tmp_path, world):
    together = split_maps("together")

    def work(number):
        torch.save([counts.histograms for counts in together.counts()], tmp_path / f"{number}.pt")

    # Before this process has readers and threads of its own, which no fork may meet.
    in_processes(work, world)
    alone = split_maps("alone")
    expected = [counts.histograms for counts in alone.counts()]
    for number in range(world):
        for ours, theirs in zip(torch.load(tmp_path / f"{number}.pt"), expected, strict=True):
            assert all(torch.equal(ours[part], theirs[part]) for part in theirs)
    assert set(workers_of(together)) == set(workers_of(alone))
    assert len(workers_of(together)) == len(cohort)
    # One folder, which a run by another number of processes goes on with.
    before = {path: path.stat().st_mtime_ns for path in (together.folder / "maps").glob("*.ome.tif")}
    together.counts()
    assert {path: path.stat().st_mtime_ns for path in (together.folder / "maps").glob("*.ome.tif")} == before


def test_a_mask_that_cannot_be_read_stops_every_process_before_anything_is_mapped(split_maps, cohort, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    maps = split_maps("maps")
    maps.records[1]["mask"] = str(tmp_path / "broken.png")

    def work(_):
        with pytest.raises(ValueError, match=r"broken\.png"):
            maps.counts()

    in_processes(work)
    assert not (maps.folder / "maps").exists()
