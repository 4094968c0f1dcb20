"""What a row says of its mask goes with it: the tumour's classes and the frame, from a manifest to regions of it."""

import os

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.data import (
    RegionDataset,
    check_images,
    fill_areas,
    load_manifest,
    pixel_target,
    slide_patches,
    slide_regions,
    write_manifest,
)
from shared.data.bag_dataset import SlideBagDataset
from shared.data.record_masks import read_record_mask, without_label
from shared.data.tissue_cache import TissueCache
from shared.evaluation.maps.scoring_grid import ScoringGrid
from shared.synthetic import write_slide
from shared.wsi.mask_region import _open_mask
from tests.wsi.scn_slide import write_scn

from .qupath_layout import collection, feature, square, write

SIDE_PX = 256


@pytest.fixture
def folder(tmp_path):
    """Slides a, b and c, all of them tissue."""
    for index, name in enumerate("abc"):
        noise = np.random.default_rng(index).integers(0, 30, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        write_slide(tmp_path / f"{name}.tif", np.array((180, 90, 150), np.uint8) + noise, mpp=0.5)
    return tmp_path


def manifest_of(folder, **rows):
    """A manifest of slides and their annotations: (class, outline) each."""
    lines = ["image,label,mask,split"]
    for name, drawn in rows.items():
        write(folder / f"{name}.geojson", collection(*(feature([outline], class_name) for class_name, outline in drawn)))
        lines.append(f"{name}.tif,1,{name}.geojson,train")
    return write(folder / "slides.csv", "\n".join(lines) + "\n")


TUMOUR, STROMA = ("Tumor", square(0, 0, 128)), ("Stroma", square(128, 0, 128))


def test_every_reader_of_masks_asks_which_class_is_tumour(folder):
    """Labels of regions, patches, areas and pixels, of which stroma would be tumour."""
    path = manifest_of(folder, a=[TUMOUR, STROMA])
    readers = [
        lambda record: sum(region["label"] for region in slide_regions(record, 128, 0.5, min_tissue=0)),
        lambda record: len(slide_patches(record, 128, 0.5, min_tissue=0)),
        lambda record: fill_areas([record], step=0.01)[0]["area"],
        lambda record: int(pixel_target(record, "mask", (SIDE_PX, SIDE_PX)).sum()),
        lambda record: check_images([RegionDataset([record], pixel_labels="mask")]),
    ]
    (record,) = load_manifest(path)
    for read in readers:
        with pytest.raises(ValueError, match=r"slides\.csv, row 2, .*a\.geojson.* found Tumor \(1\), Stroma \(1\)"):
            read(record)
    (named,) = load_manifest(path, tumour_classes=["tumor"])
    assert [read(named) for read in readers] == [1, 1, 0.25, 128 * 128, None]
    (mistaken,) = load_manifest(path, tumour_classes=["Tumour"])
    for read in readers:
        with pytest.raises(ValueError, match=r"expected .*'Tumour' \(tumour_classes\), found Tumor \(1\), Stroma \(1\)"):
            read(mistaken)


def test_regions_and_patches_say_what_their_slide_said(folder):
    path = manifest_of(folder, a=[TUMOUR, STROMA])
    (record,) = load_manifest(path, tumour_classes=["Tumor"], annotation_frame="level0")
    for made in (slide_regions(record, 128, 0.5, min_tissue=0), slide_patches(record, 64, 0.5, min_tissue=0)):
        assert made
        write_manifest(made, folder / "made.csv")
        again = load_manifest(folder / "made.csv")
        assert {(row["tumour_classes"], row["annotation_frame"]) for row in again} == {("Tumor", "level0")}


def test_files_of_one_class_each_are_of_the_same_class(folder):
    """A normal slide on which stroma alone was drawn is all tumour otherwise."""
    path = manifest_of(folder, a=[TUMOUR], b=[("tumor: Positive", square(0, 0, 9))], c=[("Layer", STROMA[1])])
    records = load_manifest(path)
    images = RegionDataset(records, pixel_labels="mask")
    with pytest.raises(ValueError, match=r"row 4, .*c\.geojson are of the class Layer, those of .* of tumor.*tumour_classes"):
        check_images([images])
    named = [record | ({"label": 0} if record["row"] == 4 else {}) for record in load_manifest(path, tumour_classes="Tumor")]
    assert [int(pixel_target(record, "mask", (SIDE_PX, SIDE_PX)).sum()) for record in named] == [128 * 128, 81, 0]
    # As soon as the file is corrected.
    text = (folder / "c.geojson").read_text().replace("Layer", "Tumor")
    (folder / "c.geojson").write_text(text)
    os.utime(folder / "c.geojson", ns=(0, 0))
    check_images([images])


def test_a_slide_without_tumour_has_none_annotated(folder):
    """What is drawn on a normal slide would make it all tumour; regions of a tumour slide are normal where nothing is drawn."""
    manifest_of(folder, a=[("", STROMA[1])])
    (record,) = load_manifest(write(folder / "normal.csv", "image,label,mask,split\na.tif,0,a.geojson,train\n"))
    with pytest.raises(ValueError, match=r"normal\.csv, row 2, .*label 0 means no tumour, .*a\.geojson show some"):
        pixel_target(record, "mask", (SIDE_PX, SIDE_PX))
    assert not pixel_target(record | {"tumour_classes": "Tumor"}, "mask", (SIDE_PX, SIDE_PX)).any()
    region = record | {"x": 0, "y": 128, "width_px": 128, "height_px": 128}
    assert not pixel_target(region, "mask", (128, 128)).any()


@pytest.mark.parametrize("drawn", [[], [feature([square(0, 0, 128)], "Tumor", "cell")]], ids=["nothing", "cells"])
def test_a_slide_with_tumour_has_some_annotated(drawn, folder):
    """What is exported from QuPath without its annotations would be a slide without tumour."""
    path = manifest_of(folder, a=[TUMOUR])
    write(folder / "a.geojson", collection(*drawn))
    (record,) = load_manifest(path)
    with pytest.raises(ValueError, match=r"slides\.csv, row 2, .*label 1 means tumour, .*a\.geojson show none"):
        pixel_target(record, "mask", (SIDE_PX, SIDE_PX))
    assert not pixel_target(record | {"label": 0}, "mask", (SIDE_PX, SIDE_PX)).any()


def save_mask(path, drawn=None):
    """A mask of a slide of `folder`, with tumour in (x, y, width, height) or nowhere."""
    pixels = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    if drawn:
        x, y, width, height = drawn
        pixels[y : y + height, x : x + width] = 255
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path)
    else:
        tifffile.imwrite(path, pixels, tile=(128, 128), photometric="minisblack", compression="deflate")


@pytest.mark.parametrize("name", ["mask.png", "mask.tif"])
@pytest.mark.parametrize(("label", "drawn", "message"), [(0, (9, 9, 200, 100), "no tumour"), (1, None, "tumour")])
def test_an_image_mask_that_contradicts_its_label_is_refused(label, drawn, message, name, folder):
    """Wherever all of it is read: a tiled TIFF is not read in full to see this, so a part tells no more than it shows."""
    save_mask(folder / name, drawn)
    (record,) = load_manifest(write(folder / "slides.csv", f"image,label,mask\na.tif,{label},{name}\n"), require=("label",))
    shape, tissue = (SIDE_PX, SIDE_PX), TissueCache(folder / "tissue")
    row = {"width_px": str(SIDE_PX), "height_px": str(SIDE_PX), "mpp": "0.5"}
    bags = SlideBagDataset([record], tissue, tile_size_px=128, mpp=0.5, tiles_per_slide=64, min_tissue=0.1, with_shares=True)
    grid = ScoringGrid.of_mpp(record, row, 0.5)
    readers = [
        lambda: pixel_target(record, "mask", shape),
        lambda: check_images([RegionDataset([record], pixel_labels="mask")]),
        lambda: slide_regions(record, 128, 0.5, min_tissue=0),
        lambda: slide_patches(record, 128, 0.5, min_tissue=0),
        lambda: [bags[0]],
        lambda: [grid.truth(*strip) for strip in grid.strips()],
    ]
    for read in readers:
        _open_mask.cache_clear()
        with pytest.raises(
            ValueError, match=rf"label {label} means {message}, but the mask .*{name} shows .*: correct the label or"
        ):
            read()
    agreeing = {**record, "label": 1 - label}
    assert pixel_target(agreeing, "mask", shape).sum() == (20_000 if drawn else 0)
    assert not read_record_mask(without_label(record), (128, 128), 64, shape).any()


def test_regions_that_may_be_right_are_counted_in_one_warning(folder, caplog):
    """A region that has the label of its slide, and one that touches tumour; where a fifth is tumour the label is wrong."""
    save_mask(folder / "mask.png", (0, 0, 3, 3))
    lines = ["image,label,mask,x,y,width_px,height_px", "a.tif,1,mask.png,0,0,100,100"]
    lines += [f"a.tif,1,mask.png,{x},128,64,64" for x in (0, 64, 128)] + ["a.tif,0,mask.png,1,1,64,64"]
    path = write(folder / "regions.csv", "\n".join(lines) + "\n")
    records = load_manifest(path, require=("label", "mask"))
    images = [RegionDataset(part, pixel_labels="mask") for part in (records[:2], records[2:])]
    check_images(images)
    assert [record.message.split(": used as")[0] for record in caplog.records] == [
        f"{path}: the masks of 3 rows with a label above 0 and no tumour at the pixel size of the images, the first of row 3 "
        f"({folder / 'mask.png'})",
        f"{path}: the mask of 1 row with label 0 and some tumour, the first of row 6 ({folder / 'mask.png'})",
    ]
    wrong = {**records[0], "label": 0, "width_px": 6, "height_px": 7}
    for read in (
        lambda: pixel_target(wrong, "mask", (7, 6)),
        lambda: check_images([RegionDataset([wrong], pixel_labels="mask")]),
    ):
        with pytest.raises(ValueError, match=r"regions\.csv, row 2, .*label 0 means no tumour.*mask\.png shows it on 21% of the"):
            read()


def test_a_tile_that_has_the_label_of_its_slide_is_used_with_a_warning(tmp_path, caplog):
    """Or that touches tumour and has none by its own label; one that is all tumour is not normal."""
    for name in ("a", "b"):
        Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(tmp_path / f"{name}.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "empty.png")
    touching = np.zeros((64, 64), np.uint8)
    touching[0, :9] = 255
    Image.fromarray(touching).save(tmp_path / "touching.png")
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(tmp_path / "full.png")
    path = write(tmp_path / "tiles.csv", "image,label,mask,split\na.png,1,empty.png,train\nb.png,0,touching.png,train\n")
    records = load_manifest(path)
    check_images([RegionDataset(records, pixel_labels="mask")])
    assert [record.message.split(", the first")[0] for record in caplog.records] == [
        f"{path}: the mask of 1 row with a label above 0 and no tumour at the pixel size of the images",
        f"{path}: the mask of 1 row with label 0 and some tumour",
    ]
    with pytest.raises(ValueError, match=r"row 3, .*label 0 means no tumour.*full\.png shows it on 100% of the image"):
        pixel_target({**records[1], "mask": str(tmp_path / "full.png")}, "mask", (64, 64))


def test_a_corner_of_a_large_region_says_nothing_of_its_label(tmp_path):
    """Before a training the mask of a large slide is opened, and not read."""
    side = 4608
    picture = np.full((side, side, 3), 200, np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", picture, tile=(256, 256), photometric="rgb", compression="deflate")
    mask = np.zeros((side, side), np.uint8)
    mask[:20, :20] = 255
    tifffile.imwrite(tmp_path / "mask.tif", mask, tile=(256, 256), photometric="minisblack", compression="deflate")
    line = f"a.tif,0,mask.tif,0,0,{side},{side},0.25,train"
    path = write(tmp_path / "regions.csv", f"image,label,mask,x,y,width_px,height_px,mpp,split\n{line}\n")
    check_images([RegionDataset(load_manifest(path), pixel_labels="mask", mpp=1.0)])


def test_of_several_classes_a_mask_may_hold_others_than_its_label(folder):
    save_mask(folder / "mask.png")
    Image.fromarray(np.full((SIDE_PX, SIDE_PX), 2, np.uint8)).save(folder / "other.png")
    for label in (0, 1, 2):
        for name in ("mask.png", "other.png"):
            record = {"image": str(folder / "a.tif"), "label": label, "mask": str(folder / name)}
            check_images([RegionDataset([record], pixel_labels="mask", num_classes=3)])


def test_a_manifest_of_a_slide_that_was_scanned_in_part(tmp_path):
    noise = np.random.default_rng(0).integers(0, 30, (200, 240, 3), dtype=np.uint8)
    write_scn(tmp_path / "a.scn", np.array((180, 90, 150), np.uint8) + noise, (300, 200), (900, 700))
    write(tmp_path / "a.geojson", collection(feature([square(40, 60, 100)], "Tumor")))
    write(tmp_path / "slides.csv", "image,label,mask\na.scn,1,a.geojson\n")
    (record,) = load_manifest(tmp_path / "slides.csv")
    rows, columns = np.nonzero(pixel_target(record, "mask", (700, 900))[0].numpy())
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (340, 260, 439, 359)
    (record,) = load_manifest(tmp_path / "slides.csv", annotation_frame="level0")
    assert pixel_target(record, "mask", (700, 900))[0, 60:160, 40:140].all()
