import numpy as np
import pytest
from PIL import Image

from shared.inference import Compute, SlideMapper, Tiles, find_images


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "sub/a.JPG", "sub/c.svs", "notes.txt", ".hidden.png", "results/b.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, format="PNG")
    return tmp_path


def test_folders_are_searched_without_the_results(folder):
    images = find_images(folder, exclude=folder / "results")
    assert [image.name for image in images] == ["b", "a", "c"]


def test_results_are_told_from_images(tmp_path, redness):
    """The folder of a finished run is not searched by another, wherever it lies."""
    Image.fromarray(np.full((40, 40, 3), 245, np.uint8)).save(tmp_path / "a.png")
    SlideMapper(redness, tiles=Tiles(tile_size_px=32, margin_px=0), compute=Compute(device="cpu", amp=False)).run(
        tmp_path / "a.png", tmp_path / "maps"
    )
    assert [image.path for image in find_images(tmp_path, exclude=tmp_path / "others")] == [tmp_path / "a.png"]


def test_one_file(folder):
    (image,) = find_images(folder / "sub" / "c.svs")
    assert (image.path, image.name, image.mpp) == (folder / "sub" / "c.svs", "c", None)


def test_same_names_are_refused(folder):
    with pytest.raises(ValueError, match=r"b\.png and .*results/b\.png would both"):
        find_images(folder)


def test_manifest_takes_each_image_once_and_its_mpp(folder):
    table = folder / "manifest.csv"
    table.write_text(
        "image,x,y,width_px,height_px,mpp,split\nb.png,0,0,2,2,0.3,train\nb.png,2,0,2,2,,train\nsub/c.svs,,,,,,test\n"
    )
    assert [(image.name, image.mpp) for image in find_images(table)] == [("b", 0.3), ("c", None)]
    assert [image.name for image in find_images(table, split="test")] == ["c"]


def test_a_slide_that_cannot_be_read_is_left_to_its_own_row(folder):
    """Also where regions are in micrometres, for which its pixel size is needed elsewhere."""
    table = folder / "manifest.csv"
    table.write_text("image,x,y,width_um,height_um,split\nnone.svs,0,0,8,8,test\nsub/c.svs,0,0,8,8,train\nb.png,,,,,train\n")
    assert [image.name for image in find_images(table)] == ["none", "c", "b"]
    assert [image.name for image in find_images(table, split="train")] == ["c", "b"]


def test_manifest_with_two_mpp_for_one_image(folder):
    table = folder / "manifest.csv"
    table.write_text("image,x,y,width_px,height_px,mpp\nb.png,0,0,2,2,0.3\nb.png,2,0,2,2,0.5\n")
    with pytest.raises(ValueError, match=r"row 3: .*b\.png has mpp 0.5 here and 0.3 before"):
        find_images(table)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("nothing.svs", None, "does not exist"),
        ("notes.txt", None, "unsupported format"),
        ("empty", None, "contains no image"),
        ("sub", "test", "needs a manifest"),
    ],
)
def test_nothing_to_map(folder, name, split, message):
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        find_images(folder / name, split)
