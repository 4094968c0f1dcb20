"""Bags of tiles from small slides whose tumour is painted."""

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch.utils.data import DataLoader

from shared.data import RegionLoader, SlideBagDataset, TissueCache, check_slides, load_manifest, pixel_statistics
from shared.synthetic import write_slide
from shared.wsi import Slide

NUM_TILES, SIZE_PX = 12, 32
# (height, width) of the slides; neither is a multiple of a tile or of a mask pixel.
SIZES = ((410, 610), (430, 530), (390, 570))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three slides of 0.5 um: tissue with noise on glass; tumour in the left half of slides 0 and 2."""
    folder = tmp_path_factory.mktemp("slides")
    rng = np.random.default_rng(0)
    lines = ["image,label,mask,case_id,split,mpp"]
    for index, (height, width) in enumerate(SIZES):
        image = np.full((height, width, 3), 245, np.uint8)
        image[60:-60, 80:-80] = np.array([190, 90, 160]) + rng.integers(-25, 26, (height - 120, width - 160, 3))
        write_slide(folder / f"{index}.tif", image)
        mask = np.zeros((height, width), np.uint8)
        if index != 1:
            mask[60:-60, 80 : width // 2] = 255
            Image.fromarray(mask).save(folder / f"{index}_mask.png")
        lines.append(f"{index}.tif,{int(index != 1)},{'' if index == 1 else f'{index}_mask.png'},{index},train,")
    (folder / "slides.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def records(folder):
    return load_manifest(folder / "slides.csv")


@pytest.fixture
def tissue(tmp_path):
    return TissueCache(tmp_path / "tissue", mpp=4.0)


@pytest.fixture
def make(records, tissue):
    def make(data=None, **options):
        options = {"tiles_per_slide": NUM_TILES, "tile_size_px": SIZE_PX, "mpp": 1.0} | options
        return SlideBagDataset(records if data is None else data, tissue, **options)

    return make


@pytest.mark.parametrize("mpp", [0.5, 1.0, 0.7])
def test_shapes_types_and_pixels(make, records, mpp):
    dataset = make(mpp=mpp, with_shares=True)
    assert len(dataset) == 3
    for index, record in enumerate(records):
        item = dataset[index]
        assert set(item) == {"tiles", "label", "index", "xy", "tumour_share"}
        assert (item["tiles"].shape, item["tiles"].dtype) == ((NUM_TILES, SIZE_PX, SIZE_PX, 3), torch.uint8)
        assert (item["xy"].shape, item["xy"].dtype) == ((NUM_TILES, 2), torch.int64)
        assert (item["tumour_share"].shape, item["tumour_share"].dtype) == ((NUM_TILES,), torch.float32)
        assert (item["label"], item["index"]) == (record["label"], index)
        with Slide(record["image"]) as slide:
            expected = slide.read_regions(item["xy"].numpy(), SIZE_PX, mpp=mpp)
        assert np.array_equal(item["tiles"].numpy(), expected)
    assert set(make()[0]) == {"tiles", "label", "index", "xy"}


def test_tiles_lie_on_tissue_and_not_on_a_grid(make):
    dataset = make(tiles_per_slide=60, min_tissue=0.9)
    for index, (height, width) in enumerate(SIZES):
        item = dataset[index]
        middles = item["xy"] + SIZE_PX  # a tile is 2 * 32 level-0 pixels wide
        assert ((middles > 80) & (middles < torch.tensor([width - 80, height - 60]))).all()
        assert (item["tiles"].float().mean(dim=(1, 2, 3)) < 175).all()  # glass would lift the mean of 147
        assert len(item["xy"][:, 0].remainder(8).unique()) > 4


def places(dataset, epoch=0):
    dataset.set_epoch(epoch)
    return [dataset[index]["xy"].tolist() for index in range(len(dataset))]


def test_places_depend_on_seed_epoch_and_slide_only(make, records):
    first = places(make())
    assert places(make()) == first
    again = make()
    assert places(again, epoch=1) != first
    assert places(again, epoch=0) == first
    # The other slides change nothing, nor does what else is read.
    assert places(make(records[:1])) == first[:1]
    assert places(make(with_shares=True)) == first
    # The same slide in another row, with another seed, in another epoch: all of them other places.
    same = make([records[0]] * 2)
    drawn = [*places(same), *places(same, epoch=1), *places(make([records[0]] * 2, seed=1))]
    assert len({str(bag) for bag in drawn}) == 6


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_a_loader(make, num_workers):
    dataset = make(with_shares=True)
    loader = RegionLoader(dataset, 2, num_workers=num_workers, seed=3)
    for epoch in (0, 4):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert [len(batch["index"]) for batch in batches] == [2, 1]
        assert batches[0]["tiles"].shape == (2, NUM_TILES, SIZE_PX, SIZE_PX, 3)
        assert batches[0]["label"].dtype == torch.int64
        alone = make(with_shares=True)
        alone.set_epoch(epoch)
        for batch in batches:
            for position, index in enumerate(batch["index"].tolist()):
                for name in ("tiles", "xy", "tumour_share"):
                    assert torch.equal(batch[name][position], alone[index][name])


def test_spawned_workers_draw_the_same(make):
    dataset = make()
    dataset.set_epoch(2)
    expected = [dataset[index] for index in range(3)]  # slides are open here, and are opened anew there
    spawned = list(DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn"))
    for ours, theirs in zip(spawned, expected, strict=True):
        assert torch.equal(ours["xy"], theirs["xy"])
        assert torch.equal(ours["tiles"], theirs["tiles"])


@pytest.mark.parametrize("mpp", [0.5, 1.0])
def test_tumour_shares_against_the_mask(make, records, mpp):
    dataset = make(tiles_per_slide=40, mpp=mpp, with_shares=True)
    side = round(SIZE_PX * mpp / 0.5)
    for index, record in enumerate(records):
        item = dataset[index]
        if record["mask"] is None:
            assert not item["tumour_share"].any()
            continue
        mask = np.pad(np.asarray(Image.open(record["mask"])) > 0, side)
        expected = [mask[y + side : y + 2 * side, x + side : x + 2 * side].mean() for x, y in item["xy"].tolist()]
        # From 16 points a side, of which the tumour's edge may cut off half of one more or less.
        assert item["tumour_share"].tolist() == pytest.approx(expected, abs=0.5 / 16 + 1e-6)
        assert 0 < item["tumour_share"].mean() < 1


def test_tumour_shares_of_a_coarse_mask(make, records, tmp_path):
    exact = make(with_shares=True)[0]["tumour_share"]
    with Image.open(records[0]["mask"]) as mask:
        mask.resize((mask.width // 2, mask.height // 2), Image.Resampling.NEAREST).save(tmp_path / "half.png")
    coarse = make([records[0] | {"mask": str(tmp_path / "half.png")}], with_shares=True)[0]["tumour_share"]
    torch.testing.assert_close(coarse, exact, atol=1 / 16, rtol=0)


def test_a_slide_with_few_places_gives_some_twice(make, tmp_path):
    image = np.full((200, 300, 3), 245, np.uint8)
    image[80:112, 100:132] = (190, 90, 160)
    write_slide(tmp_path / "speck.tif", image)
    dataset = make([{"image": str(tmp_path / "speck.tif"), "label": 0}], tiles_per_slide=100, tile_size_px=16)
    assert dataset[0]["tiles"].shape == (100, 16, 16, 3)


@pytest.fixture
def broken(records, tmp_path):
    """Records, each with one thing wrong, and what the error says of it."""
    glass = np.full((300, 400, 3), 245, np.uint8)
    write_slide(tmp_path / "glass.tif", glass)
    Image.fromarray(glass).save(tmp_path / "tile.png")
    (tmp_path / "damaged.tif").write_bytes(b"no slide at all")
    Image.fromarray(glass[..., 0]).save(tmp_path / "other_mask.png")
    good = records[0] | {"row": 7}
    return {
        "no mask": (good | {"mask": None}, "0.tif", "column 'mask' is empty"),
        "lost mask": (good | {"mask": str(tmp_path / "lost.png")}, "0.tif", "lost.png cannot be read"),
        "wrong mask": (good | {"mask": str(tmp_path / "other_mask.png")}, "0.tif", "a mask must have the image's size"),
        "no mpp": (good | {"image": str(tmp_path / "tile.png")}, "tile.png", "does not say how large its pixels are"),
        "glass": (good | {"image": str(tmp_path / "glass.tif"), "mask": None}, "glass.tif", "0.0% of the slide is tissue"),
        "region": (good | {"x": 0, "y": 0, "width_px": 64, "height_px": 64}, "0.tif", "leave x, y and the region's size empty"),
        "damaged": (good | {"image": str(tmp_path / "damaged.tif")}, "damaged.tif", "damaged.tif"),
        "lost": (good | {"image": str(tmp_path / "lost.tif")}, "lost.tif", "lost.tif"),
    }


KINDS = ("no mask", "lost mask", "wrong mask", "no mpp", "glass", "region", "damaged", "lost")


@pytest.mark.parametrize("kind", KINDS)
def test_errors_name_row_and_file(make, broken, kind):
    record, file, problem = broken[kind]
    with pytest.raises(ValueError, match=rf"row 7, \S*{file}: .*{problem}"):
        check_slides([make([record], with_shares=True)])
    if kind != "region":  # checked at the start only
        with pytest.raises(ValueError, match=rf"row 7, \S*{file}: .*{problem}"):
            make([record], with_shares=True)[0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_that_is_wrong_is_reported_at_once(make, broken, records, num_workers):
    wrong = [broken[kind][0] | {"row": row} for row, kind in enumerate(KINDS, 10)]
    with pytest.raises(ValueError, match="8 of 11 slides do not fit:") as error:
        check_slides([make(records, with_shares=True), make(wrong, with_shares=True)], num_workers)
    assert [line.split(",")[0] for line in str(error.value).splitlines()[1:]] == [f"  {record['manifest']}" for record in wrong]
    for row, kind in enumerate(KINDS, 10):
        assert f"row {row}, " in str(error.value)
        assert broken[kind][1] in str(error.value)


def test_no_more_than_twenty_are_named(make, broken):
    record = broken["lost"][0]
    with pytest.raises(ValueError, match="23 of 23 slides do not fit, the first 20:") as error:
        check_slides([make([record | {"row": row} for row in range(23)])])
    assert "row 19, " in str(error.value)
    assert "row 20, " not in str(error.value)


def test_a_slide_coarser_than_the_tiles(make, records):
    make(mpp=0.495)[0]  # to 2 % it is read as it is
    dataset = make([records[1] | {"row": 5}], mpp=0.48)
    for read in (lambda: dataset[0], lambda: check_slides([dataset])):
        with pytest.raises(ValueError, match=r"row 5, \S*1\.tif: its pixels are 0\.5 um, coarser than mpp=0\.48"):
            read()


def test_one_slide_in_two_splits(make, records, tmp_path):
    copy = records[0] | {"image": str(tmp_path / "copy.tif"), "row": 9, "split": "test"}
    (tmp_path / "copy.tif").write_bytes(Path(records[0]["image"]).read_bytes())
    with pytest.raises(ValueError, match=r"row 9, \S*copy\.tif: it has the content of \S*0\.tif \(row 2\): .* train and test"):
        check_slides([make(), make([copy])])
    # Within a split it is no leak; without named splits each data set is one.
    check_slides([make([*records, copy | {"split": "train"}])])
    bare = [{name: value for name, value in record.items() if name != "split"} for record in (records[0], copy)]
    check_slides([make(bare)])
    with pytest.raises(ValueError, match="1 of 2 slides"):
        check_slides([make(bare[:1]), make(bare[1:])])


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
def test_numbers_out_of_range(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_processes_of_a_group_share_the_work(make, records, broken, tmp_path):
    expected = pixel_statistics(make(), tmp_path / "alone.json")
    wrong = [*records, broken["glass"][0], *records, broken["damaged"][0] | {"row": 8}]

    def work(rank, opened):
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=rank, world_size=2)
        dataset = make(wrong)
        check, dataset.check = dataset.check, lambda index: opened.put((rank, index)) or check(index)
        with pytest.raises(ValueError, match=r"2 of 8 slides do not fit:\n.*row 7, .*glass.*\n.*row 8, .*damaged"):
            check_slides([dataset])
        assert pixel_statistics(make(), tmp_path / "shared.json") == expected
        with pytest.raises(ValueError, match=r"row 7, .*glass"):
            pixel_statistics(make(wrong[:4]), tmp_path / "wrong.json")
        dist.destroy_process_group()

    context = multiprocessing.get_context("fork")
    opened = context.Queue()
    processes = [context.Process(target=work, args=(rank, opened)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(opened.get(timeout=60) for _ in wrong)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert found == [(0, 0), (0, 2), (0, 4), (0, 6), (1, 1), (1, 3), (1, 5), (1, 7)]
    assert json.loads((tmp_path / "shared.json").read_text()) == expected
    assert not (tmp_path / "wrong.json").exists()


@pytest.mark.parametrize("kind", ["no mask", "glass", "damaged"])
def test_workers_raise_the_same(make, broken, records, kind):
    datasets = [make(), make([*records, broken[kind][0]], with_shares=True)]
    messages = []
    for num_workers in (0, 2):
        with pytest.raises(ValueError, match="row 7") as error:
            check_slides(datasets, num_workers)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_a_mask_is_not_needed_without_shares(make, records):
    dataset = make([record | {"mask": None} for record in records])
    check_slides([dataset])
    assert dataset[0]["label"] == 1


def test_the_manifest_s_pixel_size_counts(make, broken):
    record = broken["no mpp"][0]
    with pytest.raises(ValueError, match=r"0\.0% of the slide"):
        check_slides([make([record | {"mpp": 0.5, "mask": None}])])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_checking_finds_the_tissue_of_all(make, tissue, num_workers):
    check_slides([make(), make()], num_workers)
    assert len(list(tissue.folder.iterdir())) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pixel_statistics(make, tmp_path, num_workers):
    dataset = make()
    file = tmp_path / "run/statistics.json"
    result = pixel_statistics(dataset, file, num_workers)
    pixels = np.concatenate([make()[index]["tiles"].numpy().reshape(-1, 3) for index in range(3)]).astype(np.float64) / 255
    assert result["mean"] == pytest.approx(pixels.mean(axis=0), abs=1e-6)
    assert result["std"] == pytest.approx(pixels.std(axis=0), abs=1e-6)
    assert json.loads(file.read_text()) == result
    assert [path.name for path in file.parent.iterdir()] == ["statistics.json"]


def test_pixel_statistics_are_read_where_they_are(make, tmp_path):
    file = tmp_path / "statistics.json"
    file.write_text('{"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}')
    assert pixel_statistics(make([]), file) == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"mean": [0.1, 0.2, 0.3], "std": [0.4',
        "[]",
        '{"mean": [0.1, 0.2, 0.3]}',
        '{"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5]}',
        '{"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0]}',
        '{"mean": [0.1, NaN, 0.3], "std": [0.4, 0.5, 0.6]}',
        '{"mean": null, "std": [0.4, 0.5, 0.6]}',
    ],
)
def test_damaged_pixel_statistics_are_found_anew(make, records, tmp_path, content, caplog):
    expected = pixel_statistics(make(records[:1]), tmp_path / "whole.json")
    file = tmp_path / "statistics.json"
    file.write_text(content)
    assert pixel_statistics(make(records[:1]), file) == expected
    assert file.read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert f"{file} does not hold mean and std" in caplog.text


def test_pixel_statistics_of_one_colour(tmp_path):
    flat = [{"tiles": torch.full((2, 8, 8, 3), 190, dtype=torch.uint8)}] * 2
    with pytest.raises(ValueError, match="no variance of colour"):
        pixel_statistics(flat, tmp_path / "statistics.json")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_of_statistics_leaves_nothing(make, tmp_path, monkeypatch):
    def half(path, text):
        path.write_bytes(text[:10].encode())
        raise KeyboardInterrupt

    dataset = make()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half)
        with pytest.raises(KeyboardInterrupt):
            pixel_statistics(dataset, tmp_path / "run/statistics.json")
    assert not list((tmp_path / "run").iterdir())
    assert pixel_statistics(dataset, tmp_path / "run/statistics.json")["std"][0] > 0


def test_processes_check_and_measure_at_once(make, records, tmp_path):
    """As under torchrun, where every process begins with the same slides, cache and file."""
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()

    def work():
        start.wait()
        check_slides([make(records * 4)])
        results.put(pixel_statistics(make(), tmp_path / "statistics.json"))

    processes = [context.Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [found[0]] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["statistics.json", "tissue"]


def test_threads_read_bags_at_once(make):
    dataset = make()
    expected = [dataset[index]["tiles"] for index in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda index: dataset[index]["tiles"], [0, 1, 2] * 4))
    assert all(torch.equal(tiles, expected[number % 3]) for number, tiles in enumerate(found))
