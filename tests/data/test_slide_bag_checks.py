"""Slides that bags are drawn from: what is wrong with them is said at the start; the statistics of their pixels."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from shared.data import check_slides, pixel_statistics
from shared.synthetic import write_slide


@pytest.fixture
def broken(bag_records, tmp_path):
    """Records, each with one thing wrong, and what the error says of it."""
    glass = np.full((300, 400, 3), 245, np.uint8)
    write_slide(tmp_path / "glass.tif", glass)
    Image.fromarray(glass).save(tmp_path / "tile.png")
    (tmp_path / "damaged.tif").write_bytes(b"no slide at all")
    Image.fromarray(glass[..., 0]).save(tmp_path / "other_mask.png")
    good = bag_records[0] | {"row": 7}
    return {
        "no mask": (good | {"mask": None}, "0.tif", "column 'mask' is empty"),
        "lost mask": (good | {"mask": str(tmp_path / "lost.png")}, "0.tif", "lost.png cannot be read"),
        "wrong mask": (good | {"mask": str(tmp_path / "other_mask.png")}, "0.tif", "a mask must have the image's size"),
        "no mpp": (good | {"image": str(tmp_path / "tile.png")}, "tile.png", "does not state its pixel size"),
        "glass": (good | {"image": str(tmp_path / "glass.tif"), "mask": None}, "glass.tif", "0.0% of the slide is tissue"),
        "region": (
            good | {"x": 0, "y": 0, "width_px": 64, "height_px": 64},
            "0.tif",
            "leave x, y and the size of the region empty",
        ),
        "damaged": (good | {"image": str(tmp_path / "damaged.tif")}, "damaged.tif", "damaged.tif"),
        "lost": (good | {"image": str(tmp_path / "lost.tif")}, "lost.tif", "lost.tif"),
    }


KINDS = ("no mask", "lost mask", "wrong mask", "no mpp", "glass", "region", "damaged", "lost")


@pytest.mark.parametrize("kind", KINDS)
def test_errors_name_row_and_file(make_bags, broken, kind):
    record, file, problem = broken[kind]
    with pytest.raises(ValueError, match=rf"row 7, \S*{file}: .*{problem}"):
        check_slides([make_bags([record], with_shares=True)])
    if kind != "region":  # checked at the start only
        with pytest.raises(ValueError, match=rf"row 7, \S*{file}: .*{problem}"):
            make_bags([record], with_shares=True)[0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_that_is_wrong_is_reported_at_once(make_bags, broken, bag_records, num_workers):
    wrong = [broken[kind][0] | {"row": row} for row, kind in enumerate(KINDS, 10)]
    with pytest.raises(ValueError, match="8 of 11 slides cannot be used:") as error:
        check_slides([make_bags(bag_records, with_shares=True), make_bags(wrong, with_shares=True)], num_workers)
    assert [line.split(",")[0] for line in str(error.value).splitlines()[1:]] == [f"  {record['manifest']}" for record in wrong]
    for row, kind in enumerate(KINDS, 10):
        assert f"row {row}, " in str(error.value)
        assert broken[kind][1] in str(error.value)


def test_no_more_than_twenty_are_named(make_bags, broken):
    record = broken["lost"][0]
    with pytest.raises(ValueError, match="23 of 23 slides cannot be used, the first 20:") as error:
        check_slides([make_bags([record | {"row": row} for row in range(23)])])
    assert "row 19, " in str(error.value)
    assert "row 20, " not in str(error.value)


def test_a_slide_coarser_than_the_tiles(make_bags, bag_records):
    make_bags(mpp=0.495)[0]  # to 2 % it is read as it is
    dataset = make_bags([bag_records[1] | {"row": 5}], mpp=0.48)
    for read in (lambda: dataset[0], lambda: check_slides([dataset])):
        with pytest.raises(ValueError, match=r"row 5, \S*1\.tif: its pixels are 0\.5 um, coarser than the mpp=0\.48"):
            read()


def test_one_slide_in_two_splits(make_bags, bag_records, tmp_path):
    copy = bag_records[0] | {"image": str(tmp_path / "copy.tif"), "row": 9, "split": "test"}
    (tmp_path / "copy.tif").write_bytes(Path(bag_records[0]["image"]).read_bytes())
    with pytest.raises(
        ValueError, match=r"row 9, \S*copy\.tif: it has the same content as \S*0\.tif \(row 2\): .* train and test"
    ):
        check_slides([make_bags(), make_bags([copy])])
    # Within a split it is no leak; without named splits each data set is one.
    check_slides([make_bags([*bag_records, copy | {"split": "train"}])])
    bare = [{name: value for name, value in record.items() if name != "split"} for record in (bag_records[0], copy)]
    check_slides([make_bags(bare)])
    with pytest.raises(ValueError, match="1 of 2 slides"):
        check_slides([make_bags(bare[:1]), make_bags(bare[1:])])


def test_processes_of_a_group_share_the_work(make_bags, bag_records, broken, tmp_path):
    expected = pixel_statistics(make_bags(), tmp_path / "alone.json")
    wrong = [*bag_records, broken["glass"][0], *bag_records, broken["damaged"][0] | {"row": 8}]

    def work(rank, opened):
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=rank, world_size=2)
        dataset = make_bags(wrong)
        check, dataset.check = dataset.check, lambda index: opened.put((rank, index)) or check(index)
        with pytest.raises(ValueError, match=r"2 of 8 slides cannot be used:\n.*row 7, .*glass.*\n.*row 8, .*damaged"):
            check_slides([dataset])
        assert pixel_statistics(make_bags(), tmp_path / "shared.json") == expected
        with pytest.raises(ValueError, match=r"row 7, .*glass"):
            pixel_statistics(make_bags(wrong[:4]), tmp_path / "wrong.json")
        dist.destroy_process_group()

    context = multiprocessing.get_context("fork")
    opened = context.Queue()
    processes = [context.Process(target=work, args=(rank, opened)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(opened.get(timeout=600) for _ in wrong)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert found == [(0, 0), (0, 2), (0, 4), (0, 6), (1, 1), (1, 3), (1, 5), (1, 7)]
    assert json.loads((tmp_path / "shared.json").read_text()) == expected
    assert not (tmp_path / "wrong.json").exists()


@pytest.mark.parametrize("kind", ["no mask", "glass", "damaged"])
def test_workers_raise_the_same(make_bags, broken, bag_records, kind):
    datasets = [make_bags(), make_bags([*bag_records, broken[kind][0]], with_shares=True)]
    messages = []
    for num_workers in (0, 2):
        with pytest.raises(ValueError, match="row 7") as error:
            check_slides(datasets, num_workers)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_a_mask_is_not_needed_without_shares(make_bags, bag_records):
    dataset = make_bags([record | {"mask": None} for record in bag_records])
    check_slides([dataset])
    assert dataset[0]["label"] == 1


def test_the_manifest_s_pixel_size_counts(make_bags, broken):
    record = broken["no mpp"][0]
    with pytest.raises(ValueError, match=r"0\.0% of the slide"):
        check_slides([make_bags([record | {"mpp": 0.5, "mask": None}])])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_checking_finds_the_tissue_of_all(make_bags, bag_tissue, num_workers):
    check_slides([make_bags(), make_bags()], num_workers)
    assert len(list(bag_tissue.folder.glob("*.png"))) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pixel_statistics(make_bags, tmp_path, num_workers):
    dataset = make_bags()
    file = tmp_path / "run/statistics.json"
    result = pixel_statistics(dataset, file, num_workers)
    pixels = np.concatenate([make_bags()[index]["tiles"].numpy().reshape(-1, 3) for index in range(3)]).astype(np.float64) / 255
    assert result["mean"] == pytest.approx(pixels.mean(axis=0), abs=1e-6)
    assert result["std"] == pytest.approx(pixels.std(axis=0), abs=1e-6)
    assert json.loads(file.read_text()) == result
    assert [path.name for path in file.parent.iterdir()] == ["statistics.json"]


def test_pixel_statistics_are_read_where_they_are(make_bags, tmp_path):
    file = tmp_path / "statistics.json"
    file.write_text('{"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}')
    assert pixel_statistics(make_bags([]), file) == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


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
def test_damaged_pixel_statistics_are_found_anew(make_bags, bag_records, tmp_path, content, caplog):
    expected = pixel_statistics(make_bags(bag_records[:1]), tmp_path / "whole.json")
    file = tmp_path / "statistics.json"
    file.write_text(content)
    assert pixel_statistics(make_bags(bag_records[:1]), file) == expected
    assert file.read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert f"{file} does not hold mean and std" in caplog.text


def test_pixel_statistics_of_one_colour(tmp_path):
    flat = [{"tiles": torch.full((2, 8, 8, 3), 190, dtype=torch.uint8)}] * 2
    with pytest.raises(ValueError, match="no variance in colour"):
        pixel_statistics(flat, tmp_path / "statistics.json")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_of_statistics_leaves_nothing(make_bags, tmp_path, monkeypatch):
    def half(path, text):
        path.write_bytes(text[:10].encode())
        raise KeyboardInterrupt

    dataset = make_bags()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half)
        with pytest.raises(KeyboardInterrupt):
            pixel_statistics(dataset, tmp_path / "run/statistics.json")
    assert not list((tmp_path / "run").iterdir())
    assert pixel_statistics(dataset, tmp_path / "run/statistics.json")["std"][0] > 0


def test_processes_check_and_measure_at_once(make_bags, bag_records, tmp_path):
    """As under torchrun, where every process begins with the same slides, cache and file."""
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()

    def work():
        start.wait()
        check_slides([make_bags(bag_records * 4)])
        results.put(pixel_statistics(make_bags(), tmp_path / "statistics.json"))

    processes = [context.Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    assert found == [found[0]] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["statistics.json", "tissue"]
