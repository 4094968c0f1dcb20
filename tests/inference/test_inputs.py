import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from shared.data import manifest_file
from shared.inference import Compute, SlideMapper, Tiles, find_images


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "sub/a.JPG", "sub/c.svs", "notes.txt", ".hidden.png", "results/b.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, format="PNG")
    return tmp_path


def test_folders_are_searched_without_the_results(folder):
    images = find_images(folder, output_dir=folder / "results")
    assert [image.name for image in images] == ["b", "a", "c"]


def test_results_are_told_from_images(tmp_path, redness):
    """The folder of a finished run is not searched by another, wherever it lies."""
    Image.fromarray(np.full((40, 40, 3), 245, np.uint8)).save(tmp_path / "a.png")
    SlideMapper(redness, tiles=Tiles(tile_size_px=32, margin_px=0), compute=Compute(device="cpu", amp=False)).run(
        tmp_path / "a.png", tmp_path / "maps"
    )
    assert [image.path for image in find_images(tmp_path, output_dir=tmp_path / "others")] == [tmp_path / "a.png"]


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


def test_a_result_replaces_no_file_that_is_read(folder, redness):
    """Neither an image nor, of whatever split, a mask, an annotation or the manifest, whatever leads to the folder."""
    (folder / "link").symlink_to(folder / "sub")
    (folder / "sub" / "c.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (folder / "sub" / "other.png").symlink_to(folder / "b.png")
    table, inside = folder / "manifest.csv", folder / "sub" / "slides.csv"
    table.write_text("image,mask,split\nsub/c.svs,,test\nb.png,,test\nnotes.png,sub/c.geojson,train\n")
    inside.write_text("image\n../b.png\n")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    mapper = SlideMapper(redness, tiles=Tiles(tile_size_px=32, margin_px=0), compute=Compute(device="cpu", amp=False))
    for source, split, out, read in [
        (folder / "b.png", None, folder, "b.png is a file to read, and b.png"),
        (table, None, folder, "b.png is a file to read, and b.png"),
        (table, "test", folder / "link", "sub/c.geojson is a file to read, and c.geojson"),
        (inside, None, folder / "sub", "sub/slides.csv is a file to read, and slides.csv"),
        (folder / "sub" / "other.png", None, folder / "sub", "other.png is a file to read, and other.png"),
    ]:
        with pytest.raises(ValueError, match=f"{read}, which is to be written to .*; nothing was written. Give another output"):
            mapper.run(source, out, split)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_features_may_lie_beside_their_images(folder):
    """Their ending is none of an image."""
    assert find_images(folder / "b.png", output_dir=folder, suffixes=(".h5",))


def test_a_file_that_is_not_there_is_not_made_by_its_prediction(tmp_path):
    """A missing annotation would then be the outline that is compared with it."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    (tmp_path / "manifest.csv").write_text("image,mask\na.jpg,maps/a.geojson\n")
    with pytest.raises(ValueError, match=r"maps/a\.geojson is a file to read"):
        find_images(tmp_path / "manifest.csv", output_dir=tmp_path / "maps", suffixes=(".ome.tif", ".geojson"))


@pytest.fixture
def calls(monkeypatch):
    """How often manifests are read, files looked up and folders listed."""
    counted = Counter()

    def count(owner, name):
        original = getattr(owner, name)

        def counting(*arguments, **options):
            counted[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    for owner, name in ((manifest_file, "_cells"), (os, "stat"), (os, "lstat"), (os, "readlink"), (os, "scandir")):
        count(owner, name)
    return counted


def test_an_output_folder_costs_no_look_up_of_each_file(folder, calls):
    """On a disk of another machine each takes a millisecond; manifests have hundreds of thousands of rows."""
    rows = [f"images/{index}.png,masks/{index}.geojson,{'train' if index else 'test'}\n" for index in range(300)]
    for name in ("images", "masks"):
        (folder / name).mkdir()
    (folder / "images/0.png").touch()
    (folder / "manifest.csv").write_text("image,mask,split\n" + "".join(rows))
    found = []
    for out in (None, folder / "results", folder / "images/new"):
        calls.clear()
        find_images(folder / "manifest.csv", "test", out, (".ome.tif", ".geojson", ".png"))
        assert calls.pop("_cells") == 1
        found.append(calls.total())
    # Of four folders: those of images, of masks, of the manifest and of the results.
    assert max(found) - found[0] < 80


def test_links_into_the_output_folder_are_found_among_many_files(folder):
    """Of any split, whether or not what they lead to is there."""
    (folder / "masks").mkdir()
    for index in range(5):
        (folder / f"masks/{index}.geojson").touch()
    (folder / "masks/5.geojson").symlink_to(folder / "results/b.geojson")
    rows = [f"b.png,{x},0,2,2,masks/{x}.geojson,train\n" for x in range(6)]
    (folder / "manifest.csv").write_text("image,x,y,width_px,height_px,mask,split\n" + "".join(rows))
    with pytest.raises(ValueError, match=r"masks/5\.geojson is a file to read, and b\.geojson"):
        find_images(folder / "manifest.csv", None, folder / "results", (".geojson",))
