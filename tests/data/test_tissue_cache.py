import multiprocessing
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from shared.data import TissueCache, tissue_cache
from shared.data.tissue_cache import content_key, edited_mask_key, image_content_key, slide_content_key
from shared.synthetic import write_slide
from shared.wsi import Slide, find_tissue


def paint(path, right=450, mpp=0.5):
    """A slide of 600 x 410 px, tissue in x 150 ... `right`, y 100 ... 300."""
    image = np.full((410, 600, 3), 245, np.uint8)
    image[100:300, 150:right] = (190, 90, 160)
    write_slide(path, image, mpp=mpp)
    return path


@pytest.fixture
def slide(tmp_path):
    return paint(tmp_path / "a.tif")


@pytest.fixture
def cache(tmp_path):
    return TissueCache(tmp_path / "deep/tissue")


def files(cache):
    return sorted(path.name for path in cache.folder.iterdir())


def test_is_that_of_find_tissue(slide, cache):
    with Slide(slide) as opened:
        expected = find_tissue(opened)
    for _ in range(2):  # found, then read
        tissue = cache.get(slide)
        assert tissue.mask.dtype == np.bool_
        assert np.array_equal(tissue.mask, expected.mask)
        assert tissue.pixel_px == expected.pixel_px
        assert tissue.mask.any()
    assert files(cache) == [cache.file(slide, 0.5).name]


def test_edits_are_known(slide, cache):
    assert edited_mask_key(cache.folder, slide) is None
    mask = cache.get(slide).mask
    TissueCache(cache.folder, method="hsv").get(slide)
    assert edited_mask_key(cache.folder, slide) is None
    keys = set()
    for number, mode in enumerate(("1", "L")):
        edited = mask.copy()
        edited[number] = ~edited[number]
        Image.fromarray(edited).convert(mode).save(cache.file(slide, 0.5))
        keys.add(edited_mask_key(cache.folder, slide))
    assert len(keys) == 2
    assert None not in keys
    assert edited_mask_key(cache.folder, slide.with_name("b.tif")) is None


def test_nothing_is_written_that_is_not_to_be_kept(slide, cache):
    reader = TissueCache(cache.folder, keep=False)
    with Slide(slide) as opened:
        assert np.array_equal(reader.of(opened).mask, reader.get(slide).mask)
    assert not cache.folder.exists()
    mask = cache.get(slide).mask
    Image.fromarray(~mask).save(cache.file(slide, 0.5))
    with Slide(slide) as opened:
        assert np.array_equal(reader.of(opened).mask, ~mask)


def test_an_edited_mask_that_is_not_used_is_told(slide, cache, caplog):
    mask = cache.get(slide).mask
    TissueCache(cache.folder, mpp=4.0).get(slide)
    assert not caplog.messages
    Image.fromarray(~mask).save(cache.file(slide, 0.5))
    cache.get(slide)
    assert not caplog.messages
    TissueCache(cache.folder, mpp=2.0, keep=False).get(slide)
    assert (
        f"a tissue mask of it in {cache.folder} was edited or is from an earlier version, but is not of method otsu at 2 um"
        in caplog.text
    )


def test_a_mask_of_an_earlier_version_is_named(slide, cache, caplog):
    old = cache.file(slide, 0.5, version=tissue_cache.TISSUE_VERSION - 1)
    old.parent.mkdir(parents=True)
    Image.new("1", (10, 10)).save(old)
    cache.get(slide)
    assert f"{old} is from an earlier version" in caplog.text
    assert f"rename it to {cache.file(slide, 0.5)}" in caplog.text


def test_found_once(slide, cache, monkeypatch):
    mask = cache.get(slide).mask
    file = cache.file(slide, 0.5)
    # An edit, as by a person who paints a part out, is kept.
    edited = mask.copy()
    edited[:, :19] = False
    Image.fromarray(edited).save(file)
    monkeypatch.setattr(tissue_cache, "find_tissue", None)
    assert np.array_equal(cache.get(slide).mask, edited)
    # Also one saved in grey, as many programs do.
    Image.fromarray(edited.astype(np.uint8) * np.uint8(255)).save(file)
    assert np.array_equal(cache.get(slide).mask, edited)


def test_valid_where_the_slide_is_moved_copied_or_touched(slide, cache, tmp_path, monkeypatch):
    expected = cache.get(slide).mask
    copy = tmp_path / "elsewhere/a.tif"
    copy.parent.mkdir()
    shutil.copyfile(slide, copy)
    moved_cache = TissueCache(tmp_path / "another machine")
    shutil.copytree(cache.folder, moved_cache.folder)
    monkeypatch.setattr(tissue_cache, "find_tissue", None)
    assert np.array_equal(moved_cache.get(copy).mask, expected)
    os.utime(copy, (0, 0))
    assert np.array_equal(moved_cache.get(copy).mask, expected)
    slide.rename(tmp_path / "elsewhere/b.tif")
    renamed, plain = (cache.file(path, 0.5).name for path in (tmp_path / "elsewhere/b.tif", copy))
    assert renamed == plain.replace("a.", "b.", 1)


def test_slides_of_one_name_have_files_of_their_own(slide, cache, tmp_path):
    (tmp_path / "other").mkdir()
    other = paint(tmp_path / "other/a.tif", right=300)
    assert cache.get(slide).share > 1.5 * cache.get(other).share
    assert len(files(cache)) == 2


def test_changed_slides_and_parameters_are_found_anew(slide, cache):
    first = cache.get(slide)
    time.sleep(0.01)  # in the next tick of the file system's clock
    paint(slide, right=300)
    assert cache.get(slide).share < first.share
    names = {cache.file(slide, 0.5), cache.file(slide, 0.25)}
    names |= {TissueCache(cache.folder, *parameters).file(slide, 0.5) for parameters in ((4.0,), (8.0, "hsv"), (8.0, "white"))}
    assert len(names) == 5
    assert len(files(cache)) == 2


def test_the_caller_s_pixel_size_counts(slide, cache):
    assert cache.get(slide, 0.5).mask.shape == cache.get(slide).mask.shape
    assert len(files(cache)) == 1
    # Pixels twice as large: twice as many mask pixels.
    assert cache.get(slide, 1.0).mask.shape[1] == pytest.approx(2 * cache.get(slide).mask.shape[1], abs=1)
    assert len(files(cache)) == 2


def test_another_version_of_the_method_finds_anew(slide, cache, monkeypatch):
    before = cache.file(slide, 0.5)
    monkeypatch.setattr(tissue_cache, "TISSUE_VERSION", tissue_cache.TISSUE_VERSION + 1)
    assert cache.file(slide, 0.5) != before


def test_key_of_the_content(tmp_path):
    def key(content):
        path = tmp_path / "file"
        path.write_bytes(content)
        return content_key(str(path), len(content), 0)

    content_key.cache_clear()
    rng = np.random.default_rng(0)
    keys = set()
    for size in (0, 1, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**20):
        content = rng.bytes(size)
        keys.add(key(content))
        content_key.cache_clear()
        assert key(content) in keys
        content_key.cache_clear()
    assert len(keys) == 6
    # A change in the first or the last byte is seen, and one in the size.
    content = bytes(3 * 2**20)
    for changed in (b"1" + content[1:], content[:-1] + b"1", content + b"\0", content[:-1]):
        content_key.cache_clear()
        keys.add(key(changed))
    assert len(keys) == 10


@pytest.mark.parametrize("damage", ["empty", "text", "header only", "half", "one byte short"])
def test_damaged_files_are_replaced(slide, cache, damage):
    expected = cache.get(slide).mask
    file = cache.file(slide, 0.5)
    content = file.read_bytes()
    wrong = {"empty": b"", "text": b"no picture", "header only": content[:33], "half": content[: len(content) // 2]}
    # What ends early within the last, empty chunk is whole for Pillow.
    file.write_bytes(wrong.get(damage, content[:-1]))
    assert np.array_equal(cache.get(slide).mask, expected)
    if damage != "one byte short":
        assert file.read_bytes() == content


@pytest.mark.parametrize("kind", ["another size", "turned", "colour", "another format"])
def test_what_is_no_mask_of_the_slide_is_replaced(slide, cache, kind, caplog):
    expected = cache.get(slide).mask
    file = cache.file(slide, 0.5)
    content = file.read_bytes()
    wrong = {
        "another size": Image.new("1", (5, 4)),
        "turned": Image.new("1", expected.shape, 1),
        "colour": Image.new("RGB", expected.shape[::-1]),
        "another format": Image.new("L", expected.shape[::-1]),
    }[kind]
    wrong.save(file, format="bmp" if kind == "another format" else "png")
    assert np.array_equal(cache.get(slide).mask, expected)
    assert file.read_bytes() == content
    assert f"{file} is not a tissue mask of {expected.shape[1]} x {expected.shape[0]} px" in caplog.text


def test_masks_larger_than_pillow_likes(slide, cache, monkeypatch):
    expected = cache.get(slide).mask
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", expected.size // 4)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(cache.file(slide, 0.5))
    monkeypatch.setattr(tissue_cache, "find_tissue", None)
    assert np.array_equal(cache.get(slide).mask, expected)
    assert expected.size // 4 == Image.MAX_IMAGE_PIXELS


def test_the_key_of_mirax_slides_knows_their_folder(tmp_path):
    slide, folder = tmp_path / "a.mrxs", tmp_path / "a"
    slide.write_bytes(b"preview")
    keys = [slide_content_key(slide)]
    folder.mkdir()
    for name, content in (("Slidedat.ini", b"1"), ("Data0000.dat", b"12"), ("Data0000.dat", b"123")):
        (folder / name).write_bytes(content)
        keys.append(slide_content_key(slide))
    assert len(set(keys)) == 4
    # Copied to another name it stays the same; a folder next to another format says nothing.
    slide.rename(tmp_path / "b.mrxs")
    folder.rename(tmp_path / "b")
    assert slide_content_key(tmp_path / "b.mrxs") == keys[-1]
    (tmp_path / "b.tif").write_bytes(b"preview")
    assert slide_content_key(tmp_path / "b.tif") == keys[0]


@pytest.mark.parametrize(
    ("name", "size", "is_same_key", "sees_all"),
    [
        ("a.bmp", 2**20, True, True),
        ("a.bmp", 2**20 + 1, False, True),
        ("a.tif", 2**26, False, True),
        ("a.tif", 2**26 + 1, True, False),
        ("a.PNG", 2**21, True, False),
    ],
)
def test_files_of_images_are_hashed_whole(tmp_path, name, size, is_same_key, sees_all):
    path = tmp_path / name
    content = bytearray(size)
    path.write_bytes(content)
    key = image_content_key(path)
    assert (key == slide_content_key(path)) == is_same_key
    # Between the first two parts of the sample, where there are any.
    content[2**16 + 1] = 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    assert (image_content_key(path) != key) == sees_all


def test_files_cut_anywhere(slide, cache):
    expected = cache.get(slide).mask
    file = cache.file(slide, 0.5)
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        assert np.array_equal(cache.get(slide).mask, expected), length


def test_bytes_changed_in_the_header(slide, cache):
    expected = cache.get(slide).mask
    file = cache.file(slide, 0.5)
    content = file.read_bytes()
    for position in range(33):
        for bit in (0, 3, 7):
            changed = bytearray(content)
            changed[position] ^= 1 << bit
            file.write_bytes(changed)
            assert np.array_equal(cache.get(slide).mask, expected), (position, bit)


def test_an_interrupted_write_leaves_nothing(slide, cache, monkeypatch):
    def fail(self, file, *_, **__):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            cache.get(slide)
    assert files(cache) == []
    assert cache.get(slide).mask.any()


def _get(folder, path, start, results):
    start.wait()
    results.put(TissueCache(folder).get(path).mask)


def test_processes_at_once(slide, cache):
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_get, args=(cache.folder, slide, start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    masks = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    assert files(cache) == [cache.file(slide, 0.5).name]


def test_writing_at_the_same_moment(slide, cache, monkeypatch):
    """All have begun to write before the first is done: each under a name of its own."""
    all_here = [0]
    save = Image.Image.save

    def slow(self, file, *args, **options):
        save(self, file, *args, **options)
        all_here[0] += 1
        deadline = time.monotonic() + 10
        while all_here[0] < 4 and time.monotonic() < deadline:
            time.sleep(0.01)

    monkeypatch.setattr(Image.Image, "save", slow)
    with ThreadPoolExecutor(4) as pool:
        masks = [tissue.mask for tissue in pool.map(cache.get, [slide] * 4)]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    assert files(cache) == [cache.file(slide, 0.5).name]


def test_errors(tmp_path, cache):
    with pytest.raises(ValueError, match="no_such"):
        cache.get(tmp_path / "no_such.tif")
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(tmp_path / "tile.png")
    with pytest.raises(ValueError, match="does not state its pixel size"):
        cache.get(tmp_path / "tile.png")
    assert cache.get(tmp_path / "tile.png", 0.5).mask.shape == (3, 3)
