"""Code shared by the readers of published data sets: files, remarks, counts, masks and regions."""

import numpy as np
import pytest
from PIL import Image

from shared.data.labels.class_masks import class_indices, main_class, object_classes, read_codes, write_class_mask, write_indices
from shared.data.patches.image_regions import image_regions, region_starts
from shared.data.public.releases import PublishedData, folder_of, images_of, split_lines, write_manifests


def test_images_are_found_by_their_stem(tmp_path):
    for name in ("b 2.PNG", "a.bmp", "._a.bmp", "notes.txt", "c.jpeg"):
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    assert {stem: path.name for stem, path in images_of(tmp_path).items()} == {"a": "a.bmp", "b 2": "b 2.PNG", "c": "c.jpeg"}
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"a\.png exists twice, also as a\.bmp"):
        images_of(tmp_path)
    with pytest.raises(ValueError, match=r"the folder .*none does not exist"):
        images_of(tmp_path / "none")


def test_a_link_keeps_its_name(tmp_path):
    (tmp_path / "store").write_bytes(b"")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").symlink_to(tmp_path / "store")
    assert images_of(tmp_path / "images")["a"] == tmp_path.resolve() / "images/a.png"


def test_a_folder_is_found_here_or_one_below(tmp_path):
    (tmp_path / "archive" / "Masks").mkdir(parents=True)
    assert folder_of(tmp_path, "masks") == folder_of(tmp_path / "archive", "other", "masks") == tmp_path / "archive/Masks"
    with pytest.raises(ValueError, match="contains no folder 'img' or 'images'"):
        folder_of(tmp_path, "img", "images")
    with pytest.raises(ValueError, match="does not exist"):
        folder_of(tmp_path / "none", "img")


def test_counts_stand_beside_the_published_ones(tmp_path):
    data = PublishedData(found={"train": 2, "extra": 1}, published={"train": 85, "test": 80}, remarks=["something"])
    rows = [("a", "train", 0, "1"), ("b", "train", 2, "1"), ("c", "test", 2, None)]
    data.records = [{"image": i, "split": split, "label": label, "case_id": case} for i, split, label, case in rows]
    expected = [
        "note: something",
        "train: 2 images (85 were published)",
        "test: 0 images (80 were published)",
        "extra: 1 images",
        f"{tmp_path / 'all.csv'}:",
        "  train: 2 images of 1 cases: 1 normal, 1 tumour",
        "  val: 0 images",
        "  test: 1 images: 1 tumour",
    ]
    assert write_manifests(data, tmp_path, {"all.csv": (data.records, ("normal", "benign", "tumour"))}) == expected
    assert (tmp_path / "all.csv").read_text() == "image,label,case_id,split\na,0,1,train\nb,2,1,train\nc,2,,test\n"
    with pytest.raises(ValueError, match=r"no image is left for none\.csv"):
        write_manifests(data, tmp_path / "other", {"all.csv": (data.records, ("normal",)), "none.csv": ([], ("normal",))})
    assert not (tmp_path / "other").exists()


def test_regions_are_counted_beside_their_images():
    records = [{"image": "a", "x": x, "split": "val", "label": 1} for x in (0, 8)]
    assert split_lines(records, ("normal", "tumour"))[1] == "val: 2 regions of 1 images: 2 tumour"


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "1"])
def test_codes_of_every_kind_of_image(tmp_path, mode):
    codes = np.array([[0, 1], [2, 20]], np.uint8)
    image = Image.fromarray(codes)
    if mode == "P":
        image = Image.new("P", (2, 2))
        image.putpalette([200, 10, 10, 0, 0, 0, 1, 2, 3] + [9] * 60)
        image.putdata(codes.ravel().tolist())
    elif mode == "1":
        codes = np.array([[0, 1], [1, 0]], np.uint8)
        image = Image.fromarray(codes > 0)
    else:
        image = image.convert(mode)
    image.save(tmp_path / "mask.png")
    assert image.mode == mode
    np.testing.assert_array_equal(read_codes(tmp_path / "mask.png"), codes)


def test_what_is_no_mask(tmp_path):
    Image.fromarray(np.array([[[0, 1, 2]]], np.uint8)).save(tmp_path / "colours.png")
    with pytest.raises(ValueError, match=r"colours\.png is in colour"):
        read_codes(tmp_path / "colours.png")
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png cannot be read .*mode I;16, not 8-bit"):
        read_codes(tmp_path / "deep.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "colours.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cut\.png cannot be read"):
        read_codes(tmp_path / "cut.png")
    with pytest.raises(ValueError, match=r"mask\.png has a pixel of value 9, which is not one of the codes 0, 3"):
        class_indices(np.array([3, 9, 0], np.uint8), {0: 0, 3: 1}, "mask.png")


def test_classes_of_codes():
    codes = np.array([[0, 3], [255, 1]], np.uint8)
    np.testing.assert_array_equal(class_indices(codes, {0: 2, 1: 0, 3: 1, 255: 1}, "m"), [[2, 1], [1, 0]])
    np.testing.assert_array_equal(class_indices(codes, object_classes(2), "m"), [[0, 2], [2, 2]])


def test_a_mask_is_written_once(tmp_path):
    Image.fromarray(np.array([[0, 7]], np.uint8)).save(tmp_path / "source.png")
    target = tmp_path / "masks/target.png"
    np.testing.assert_array_equal(write_class_mask(tmp_path / "source.png", target, object_classes(1)), [[0, 1]])
    written = target.stat().st_mtime_ns
    write_class_mask(tmp_path / "source.png", target, object_classes(1))
    assert target.stat().st_mtime_ns == written
    # Another mask, and what a killed copy has left.
    write_indices(np.array([[0, 2]], np.uint8), target)
    np.testing.assert_array_equal(read_codes(target), [[0, 2]])
    target.write_bytes(target.read_bytes()[:30])
    write_indices(np.array([[0, 2]], np.uint8), target)
    np.testing.assert_array_equal(read_codes(target), [[0, 2]])
    assert [path.name for path in target.parent.iterdir()] == ["target.png"]


def test_the_main_class():
    indices = np.array([0, 0, 0, 1, 2, 2], np.uint8)
    assert main_class(indices) == 2
    assert main_class(indices, but=()) == 0
    assert main_class(np.array([0, 2, 1], np.uint8)) == 1
    assert main_class(np.zeros(3, np.uint8)) == 0


@pytest.mark.parametrize("length_px", [64, 65, 95, 96, 97, 160, 1000])
def test_regions_lie_evenly_from_end_to_end(length_px):
    starts = region_starts(length_px, 64)
    assert len(starts) == max(1, int(length_px / 64 + 0.5))
    if len(starts) > 1:
        assert (starts[0], starts[-1] + 64) == (0, length_px)
        steps = np.diff(starts)
        assert steps.max() - steps.min() <= 1
        assert 32 <= steps.min() <= steps.max() <= 96
    else:
        assert 0 <= starts[0] <= length_px - 64 - starts[0] <= starts[0] + 1


def test_regions_of_an_image_that_is_not_square():
    regions = image_regions({"image": "a", "label": 1}, (130, 64), 64)
    assert regions == [{"image": "a", "label": 1, "x": x, "y": 0, "width_px": 64, "height_px": 64} for x in (0, 66)]
    assert image_regions({"image": "a"}, (130, 63), 64) == []
