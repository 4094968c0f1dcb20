import logging
import os
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from shared.data import PixelCache, RegionDataset, RegionLoader, pixel_cache, read_image
from shared.data.pixel_cache import LEAST_DECODED_PX, LEAST_FREE_BYTES
from shared.wsi import Slide

SIDE_PX = 600
assert SIDE_PX**2 >= LEAST_DECODED_PX


def write_picture(path, seed=0, side=SIDE_PX):
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    Image.fromarray(rng.integers(0, 2, (side, side), dtype=np.uint8)).save(path.with_suffix(".mask.png"))


@pytest.fixture
def records(tmp_path):
    """Two pictures of 600 px at 0.25 um, and an instance of each."""
    found = []
    for number in range(2):
        path = tmp_path / f"{number}.png"
        write_picture(path, number)
        whole = {"image": str(path), "mask": str(path.with_suffix(".mask.png")), "mpp": 0.25, "label": 1, "row": number + 2}
        found += [whole, {**whole, "x": 100 * number, "y": 200, "width_px": 160, "height_px": 160}]
    return found


def dataset(records, cache=None):
    return RegionDataset(records, mpp=0.5, pixel_labels="mask", cache=cache)


def files(cache):
    return sorted(cache.folder.iterdir()) if cache.folder.exists() else []


def spoil(path):
    """Overwrite the pixels of a PNG and leave its header, its size and its time of change."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[200:-50] = bytes(len(content) - 250)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def items_equal(one, other):
    return all(torch.equal(one[key], other[key]) for key in ("image", "mask"))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_items_are_the_same_and_no_file_is_decoded_again(tmp_path, records, num_workers):
    plain = [dataset(records)[index] for index in range(4)]
    cache = PixelCache(tmp_path / "cache")
    for _ in range(2):
        loader = RegionLoader(dataset(records, cache), 1, shuffle=False, num_workers=num_workers)
        batches = list(loader)
        loader.close()
        for expected, batch in zip(plain, batches, strict=True):
            assert items_equal(expected, {key: batch[key][0] for key in ("image", "mask")})
        # Of four images and four masks. Behind the first pass nothing but their headers is whole.
        assert len(files(cache)) == 8
        for path in tmp_path.glob("*.png"):
            spoil(path)
    with Slide(records[0]["image"]) as slide, pytest.raises(ValueError, match=r"0\.png"):
        slide.read_region((0, 0), 10)


def test_a_part_of_an_image_that_is_kept_is_cut_from_it(tmp_path, records):
    whole, part = records[2:]
    cache = PixelCache(tmp_path / "cache")
    expected = read_image(part, 0.25)
    read_image(whole, 0.25, cache=cache)
    spoil(tmp_path / "1.png")
    for _ in range(2):
        assert torch.equal(read_image(part, 0.25, cache=cache), expected)
    # What is resampled takes its neighbours in: it is read from the file.
    with pytest.raises(ValueError, match=r"1\.png"):
        read_image(part, 0.5, cache=cache)
    assert len(files(cache)) == 2


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_changed_image_or_mask_is_noticed(tmp_path, records, kind):
    cached = dataset(records, PixelCache(tmp_path / "cache"))
    before = cached[1]
    other = tmp_path / "other.png"
    write_picture(other, seed=9)
    (other if kind == "image" else other.with_suffix(".mask.png")).replace(records[1][kind])
    after = cached[1]
    assert torch.equal(before["image"], after["image"]) == (kind == "mask")
    assert torch.equal(before["mask"], after["mask"]) == (kind == "image")
    with Slide(records[1]["image"], mpp=0.25) as fresh:
        assert np.array_equal(after["image"].permute(1, 2, 0), fresh.read_region((0, 200), 80, mpp=0.5))


def test_what_is_read_otherwise_is_kept_otherwise(tmp_path, records):
    cache = PixelCache(tmp_path / "cache")
    for mpp in (0.25, 0.5, 0.5, 1.0):
        assert torch.equal(read_image(records[0], mpp, cache=cache), read_image(records[0], mpp))
    assert len(files(cache)) == 3


def test_a_damaged_file_is_written_again(tmp_path, records):
    cache = PixelCache(tmp_path / "cache")
    expected = read_image(records[0], 0.5, cache=cache)
    (file,) = files(cache)
    whole = file.read_bytes()
    for damage in (b"", whole[: len(whole) // 2], b"no array"):
        file.write_bytes(damage)
        assert torch.equal(read_image(records[0], 0.5, cache=cache), expected)
        assert file.read_bytes() == whole


# Room for one of two images of 300 px.
LIMITS = [{"max_gb": 1.5 * 300 * 300 * 3 / 1e9}, {"max_files": 1}]


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_the_folder_never_holds_more_than_it_may(tmp_path, records, caplog, limit):
    cache = PixelCache(tmp_path / "cache", **limit)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for record in records[::2]:
                assert torch.equal(read_image(record, 0.5, cache=cache), read_image(record, 0.5))
    assert len(files(cache)) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert ("pixels_gb" if "max_gb" in limit else "it holds 1 files, of 1 at most (pixels_files)") in caplog.text
    # A later process counts what is there.
    later = PixelCache(cache.folder, **limit)
    read_image(records[2], 0.5, cache=later)
    assert len(files(cache)) == 1


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_what_nobody_reads_makes_room(tmp_path, records, limit):
    cache = PixelCache(tmp_path / "cache", **limit)
    read_image(records[0], 0.5, cache=cache)
    (old,) = files(cache)
    long_ago = time.time() - 8 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    read_image(records[2], 0.5, cache=cache)
    (new,) = files(cache)
    assert new != old


def test_nothing_is_kept_without_room_or_need(tmp_path, records):
    none = PixelCache(tmp_path / "cache", max_gb=0)
    read_image(records[0], 0.5, cache=none)
    small = tmp_path / "small.png"
    write_picture(small, side=500)
    read_image({"image": str(small)}, cache=PixelCache(tmp_path / "cache"))
    assert not files(none)
    with pytest.raises(ValueError, match="max_gb=-1"):
        PixelCache(tmp_path, max_gb=-1)


def test_a_training_goes_on_where_nothing_can_be_kept(tmp_path, records, caplog):
    (tmp_path / "cache").write_text("a file in the folder's place")
    cache = PixelCache(tmp_path / "cache")
    for _ in range(2):
        assert torch.equal(read_image(records[0], 0.5, cache=cache), read_image(records[0], 0.5))
    assert len(caplog.records) == 1
    assert str(cache.folder) in caplog.text


def test_what_killed_runs_have_left_goes(tmp_path):
    cache = PixelCache(tmp_path / "cache")
    cache.folder.mkdir()
    old, new = (cache.folder / f"{digit * 32}.npy.{digit * 12}.part" for digit in "01")
    for path in (old, new):
        path.write_bytes(bytes(10))
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    cache.get([], ["one"], partial(np.zeros, 5, dtype=np.uint8))
    assert not old.exists()
    # Another run may be writing it.
    assert new.exists()


def test_files_of_others_are_left_alone(tmp_path, records):
    folder = tmp_path / "pixels"
    folder.mkdir()
    long_ago = time.time() - 30 * 24 * 3600
    theirs = [folder / name for name in ("mine.png", "notes.txt", "features.npy", "0123.npy.part")]
    for path in theirs:
        path.write_bytes(bytes(1000))
        os.utime(path, (long_ago, long_ago))
    cache = PixelCache(folder, max_gb=3e-6)
    read_image(records[0], 0.25, cache=cache)
    assert all(path.stat().st_size == 1000 for path in theirs)


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path, records, monkeypatch, caplog):
    expected = read_image(records[0], 0.25)
    monkeypatch.setattr(pixel_cache, "_free_bytes", lambda folder: LEAST_FREE_BYTES + 1000)
    cache = PixelCache(tmp_path / "cache")
    assert torch.equal(read_image(records[0], 0.25, cache=cache), expected)
    assert files(cache) == []
    assert "less than 2 GB are free on its disk" in caplog.text
