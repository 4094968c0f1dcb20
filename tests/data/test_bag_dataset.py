"""Bags of tiles from small slides whose tumour is painted: where they are drawn, and what they hold."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from shared.data import RegionLoader
from shared.synthetic import write_slide
from shared.wsi import Slide
from tests.data.bag_slides import NUM_TILES, SIZE_PX, SIZES


@pytest.mark.parametrize("mpp", [0.5, 1.0, 0.7])
def test_shapes_types_and_pixels(make_bags, bag_records, mpp):
    dataset = make_bags(mpp=mpp, with_shares=True)
    assert len(dataset) == 3
    for index, record in enumerate(bag_records):
        item = dataset[index]
        assert set(item) == {"tiles", "label", "index", "xy", "tumour_share"}
        assert (item["tiles"].shape, item["tiles"].dtype) == ((NUM_TILES, SIZE_PX, SIZE_PX, 3), torch.uint8)
        assert (item["xy"].shape, item["xy"].dtype) == ((NUM_TILES, 2), torch.int64)
        assert (item["tumour_share"].shape, item["tumour_share"].dtype) == ((NUM_TILES,), torch.float32)
        assert (item["label"], item["index"]) == (record["label"], index)
        with Slide(record["image"]) as slide:
            expected = slide.read_regions(item["xy"].numpy(), SIZE_PX, mpp=mpp)
        assert np.array_equal(item["tiles"].numpy(), expected)
    assert set(make_bags()[0]) == {"tiles", "label", "index", "xy"}


def test_tiles_lie_on_tissue_and_not_on_a_grid(make_bags):
    dataset = make_bags(tiles_per_slide=60, min_tissue=0.9)
    for index, (height, width) in enumerate(SIZES):
        item = dataset[index]
        middles = item["xy"] + SIZE_PX  # a tile is 2 * 32 level-0 pixels wide
        assert ((middles > 80) & (middles < torch.tensor([width - 80, height - 60]))).all()
        assert (item["tiles"].float().mean(dim=(1, 2, 3)) < 175).all()  # glass would lift the mean of 147
        assert len(item["xy"][:, 0].remainder(8).unique()) > 4


def places(dataset, epoch=0):
    dataset.set_epoch(epoch)
    return [dataset[index]["xy"].tolist() for index in range(len(dataset))]


def test_places_depend_on_seed_epoch_and_slide_only(make_bags, bag_records):
    first = places(make_bags())
    assert places(make_bags()) == first
    again = make_bags()
    assert places(again, epoch=1) != first
    assert places(again, epoch=0) == first
    # The other slides change nothing, nor does what else is read.
    assert places(make_bags(bag_records[:1])) == first[:1]
    assert places(make_bags(with_shares=True)) == first
    # The same slide in another row, with another seed, in another epoch: all of them other places.
    same = make_bags([bag_records[0]] * 2)
    drawn = [*places(same), *places(same, epoch=1), *places(make_bags([bag_records[0]] * 2, seed=1))]
    assert len({str(bag) for bag in drawn}) == 6
    # A slide that comes again in the same epoch.
    again = [make_bags().draw(0, occurrence)["xy"].tolist() for occurrence in range(3)]
    assert again[0] == first[0]
    assert len({str(bag) for bag in again}) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_a_loader(make_bags, num_workers):
    dataset = make_bags(with_shares=True)
    loader = RegionLoader(dataset, 2, num_workers=num_workers, seed=3)
    for epoch in (0, 4):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert [len(batch["index"]) for batch in batches] == [2, 1]
        assert batches[0]["tiles"].shape == (2, NUM_TILES, SIZE_PX, SIZE_PX, 3)
        assert batches[0]["label"].dtype == torch.int64
        alone = make_bags(with_shares=True)
        alone.set_epoch(epoch)
        for batch in batches:
            for position, index in enumerate(batch["index"].tolist()):
                for name in ("tiles", "xy", "tumour_share"):
                    assert torch.equal(batch[name][position], alone[index][name])


@pytest.mark.slow
def test_spawned_workers_draw_the_same(make_bags):
    dataset = make_bags()
    dataset.set_epoch(2)
    expected = [dataset[index] for index in range(3)]  # slides are open here, and are opened again there
    spawned = list(DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn"))
    for ours, theirs in zip(spawned, expected, strict=True):
        assert torch.equal(ours["xy"], theirs["xy"])
        assert torch.equal(ours["tiles"], theirs["tiles"])


@pytest.mark.parametrize("mpp", [0.5, 1.0])
def test_tumour_shares_against_the_mask(make_bags, bag_records, mpp):
    dataset = make_bags(tiles_per_slide=40, mpp=mpp, with_shares=True)
    side = round(SIZE_PX * mpp / 0.5)
    for index, record in enumerate(bag_records):
        item = dataset[index]
        if record["mask"] is None:
            assert not item["tumour_share"].any()
            continue
        mask = np.pad(np.asarray(Image.open(record["mask"])) > 0, side)
        expected = [mask[y + side : y + 2 * side, x + side : x + 2 * side].mean() for x, y in item["xy"].tolist()]
        # From 16 points a side, of which the tumour's edge may cut off half of one more or less.
        assert item["tumour_share"].tolist() == pytest.approx(expected, abs=0.5 / 16 + 1e-6)
        assert 0 < item["tumour_share"].mean() < 1


def test_tumour_shares_of_a_coarse_mask(make_bags, bag_records, tmp_path):
    exact = make_bags(with_shares=True)[0]["tumour_share"]
    with Image.open(bag_records[0]["mask"]) as mask:
        mask.resize((mask.width // 2, mask.height // 2), Image.Resampling.NEAREST).save(tmp_path / "half.png")
    coarse = make_bags([bag_records[0] | {"mask": str(tmp_path / "half.png")}], with_shares=True)[0]["tumour_share"]
    torch.testing.assert_close(coarse, exact, atol=1 / 16, rtol=0)


def test_a_slide_with_few_places_gives_some_twice(make_bags, tmp_path):
    image = np.full((200, 300, 3), 245, np.uint8)
    image[80:112, 100:132] = (190, 90, 160)
    write_slide(tmp_path / "speck.tif", image)
    dataset = make_bags([{"image": str(tmp_path / "speck.tif"), "label": 0}], tiles_per_slide=100, tile_size_px=16)
    assert dataset[0]["tiles"].shape == (100, 16, 16, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles_per_slide": 0}, "tiles_per_slide=0"),
        ({"tile_size_px": 0}, "tile_size_px=0"),
        ({"mpp": 0.0}, r"mpp=0\.0"),
        ({"min_tissue": 0.0}, r"\(0, 1\], got 0\.0"),
        ({"min_tissue": 1.01}, r"got 1\.01"),
        ({"min_tissue": float("nan")}, "got nan"),
    ],
)
def test_numbers_out_of_range(make_bags, options, message):
    with pytest.raises(ValueError, match=message):
        make_bags(**options)


def test_threads_read_bags_at_once(make_bags):
    dataset = make_bags()
    expected = [dataset[index]["tiles"] for index in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda index: dataset[index]["tiles"], [0, 1, 2] * 4))
    assert all(torch.equal(tiles, expected[number % 3]) for number, tiles in enumerate(found))
