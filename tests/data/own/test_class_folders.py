"""Your own images in a folder per class: each with its class, split, case and mask."""

import logging
import unicodedata

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.data.own.class_folders import class_folder_images
from shared.data.own.image_masks import ImageMasks
from shared.synthetic import write_slide
from tests.data.qupath_layout import collection, feature, square


def write_tile(path, value, side=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(path, format="PNG")


@pytest.fixture
def folder(tmp_path):
    """Blanks in names, upper-case endings, a slide among tiles."""
    source = tmp_path / "my images"
    for index, name in enumerate(["normal/p1 a.png", "normal/p2_a.PNG", "tumour/p3_a.png", "tumour/deep er/p4_a.jpg"]):
        write_tile(source / name, index)
    write_slide(source / "tumour/p5 a.TIF", np.full((300, 300, 3), 200, np.uint8), mpp=0.5)
    (source / "tumour/notes.txt").write_text("no image")
    (source / "tumour/.hidden.png").write_bytes(b"")
    return source


def rows(data, *columns):
    return [tuple(record[column] for column in columns) for record in data.records]


def test_the_records_line_by_line(folder):
    data = class_folder_images(folder, ["normal", "tumour"], case_pattern=r"(p\d)", mpp=0.25)
    assert rows(data, "image", "label", "mpp", "mask", "case_id") == [
        (str(folder / "normal/p1 a.png"), 0, 0.25, None, "p1"),
        (str(folder / "normal/p2_a.PNG"), 0, 0.25, None, "p2"),
        (str(folder / "tumour/deep er/p4_a.jpg"), 1, 0.25, None, "p4"),
        (str(folder / "tumour/p3_a.png"), 1, 0.25, None, "p3"),
        (str(folder / "tumour/p5 a.TIF"), 1, None, None, "p5"),
    ]
    assert {record["split"] for record in data.records} == {"train", "val", "test"}
    assert data.found == {"normal": 2, "tumour": 3}
    assert data.remarks == []


def test_the_split_of_the_folders(tmp_path):
    for index, name in enumerate(["Train/0/a.png", "Train/1/b.png", "valid/0/c.png", "test/1/d.png"]):
        write_tile(tmp_path / name, index)
    data = class_folder_images(tmp_path)
    assert rows(data, "label", "split") == [(0, "train"), (1, "train"), (1, "test"), (0, "val")]


def test_which_class_is_which(folder):
    with pytest.raises(ValueError, match=r"give classes, .*: normal, tumour"):
        class_folder_images(folder)
    with pytest.raises(ValueError, match="the folders normal are not among the classes benign, tumour"):
        class_folder_images(folder, ["benign", "tumour"])
    data = class_folder_images(folder, ["benign|Normal", "TUMOUR"])
    assert [label for (label,) in rows(data, "label")] == [0, 0, 1, 1, 1]
    for classes in (["tumour"], ["normal", "Normal"], ["normal", ""]):
        with pytest.raises(ValueError, match="classes must be at least two different names"):
            class_folder_images(folder, classes)


def test_masks_of_the_same_names(folder, tmp_path):
    """Beside the images or in folders of their own; annotation files too; background needs none."""
    masks = tmp_path / "masks"
    write_tile(masks / "p3_a_mask.png", 255)
    write_tile(masks / "tumour/p4_a.PNG", 255, 16)
    write_tile(masks / "other/p4_a.png", 0)
    (masks / "P5 A.geojson").write_text(collection(feature([square(10, 10, 40)])))
    (folder / "tumour/deep er/p4_a.jpg").rename(folder / "tumour/p4_a.jpg")
    data = class_folder_images(folder, ["normal", "tumour"], masks)
    assert rows(data, "mask") == [
        (None,),
        (None,),
        (str(masks / "p3_a_mask.png"),),
        (str(masks / "tumour/p4_a.PNG"),),
        (str(masks / "P5 A.geojson"),),
    ]


def write_tiles(root, *names):
    """Different tiles, or masks, of these names."""
    for value, name in enumerate(names):
        write_tile(root / name, 50 + value)


@pytest.mark.parametrize(
    "pairs",
    [
        # Two classes number their images alike, and only those with tumour have masks.
        {"normal/0.png": None, "tumour/0.png": "tumour/0.png"},
        # The same folders tell more than some folders of the same name.
        {"train/normal/1.png": None, "train/tumour/0.png": "train/tumour/0.png", "val/tumour/0.png": "val/tumour/0.png"},
        {"normal/1.png": None, "tumour/0.png": "tumour/0.png", "tumour/p1/0.png": "tumour/p1/0.png"},
        {"normal/1.png": None, "tumour/a/0.png": "set/a/0.png", "tumour/b/0.png": "b/0.png"},
    ],
)
def test_images_of_one_name_have_the_masks_of_their_folders(tmp_path, pairs):
    write_tiles(tmp_path / "images", *pairs)
    write_tiles(tmp_path / "masks", *filter(None, pairs.values()))
    data = class_folder_images(tmp_path / "images", ["normal", "tumour"], tmp_path / "masks")
    assert {record["image"]: record["mask"] for record in data.records} == {
        str(tmp_path / "images" / image): mask and str(tmp_path / "masks" / mask) for image, mask in pairs.items()
    }


@pytest.mark.parametrize(
    ("images", "masks", "problem", "usable"),
    [
        # The mask of another patient's image.
        (
            ["normal/1.png", "tumour/p1/0.png", "tumour/p2/0.png"],
            ["p1/0.png"],
            r"1 images .*tumour/p2/0\.png has no mask: \S*masks/p1/0\.png is that of \S*tumour/p1/0\.png$",
            ["normal/1.png", "tumour/p1/0.png"],
        ),
        # Nothing says which image a mask is of, also where one of them needs none.
        (
            ["normal/0.png", "normal/1.png", "tumour/0.png"],
            ["0.png"],
            r"2 images .*normal/0\.png: the mask \S*masks/0\.png has its name and that of \S*tumour/0\.png: put masks into",
            ["normal/1.png"],
        ),
        (
            ["normal/1.png", "tumour/p1/0.png", "tumour/p2/0.png"],
            ["tumour/0.png"],
            r"2 images .*tumour/p1/0\.png: the mask \S*tumour/0\.png has its name and that of \S*tumour/p2/0\.png",
            ["normal/1.png"],
        ),
        # Nor which mask an image has.
        (
            ["normal/1.png", "normal/0.png"],
            ["a/0.png", "b/0.png"],
            r"normal/0\.png has several masks: \S*a/0\.png",
            ["normal/1.png"],
        ),
    ],
)
def test_no_image_gets_a_mask_that_may_be_anothers(tmp_path, images, masks, problem, usable):
    write_tiles(tmp_path / "images", *images)
    write_tiles(tmp_path / "masks", *masks)
    folders = tmp_path / "images", ["normal", "tumour"], tmp_path / "masks"
    with pytest.raises(ValueError, match=f"(?s){problem}"):
        class_folder_images(*folders)
    data = class_folder_images(*folders, allow_missing=True)
    assert [record["image"] for record in data.records] == [str(tmp_path / "images" / name) for name in usable]


def test_folders_that_hold_the_same_names_are_looked_up_and_not_compared(tmp_path, monkeypatch):
    """Tiles that are named by their place have one name in every slide's folder."""
    names = [f"p{slide}/{tile}.png" for slide in range(30) for tile in range(3)]
    for root in ("images", "masks"):
        write_tiles(tmp_path / root, *names)
    images, compared = [tmp_path / "images" / name for name in names], []
    monkeypatch.setattr(ImageMasks, "_agreement", lambda self, image, mask: compared.append((image, mask)) or 1)
    masks = ImageMasks(tmp_path / "masks", images, tmp_path / "images")
    assert compared == []
    assert [masks.of(image) for image in images] == [tmp_path / "masks" / name for name in names]
    assert len(compared) == len(images)


def test_an_image_of_another_folder_is_no_mask(tmp_path):
    """Masks may lie beside their images, so both may be searched."""
    write_tiles(tmp_path, "normal/0.png", "tumour/0.png")
    with pytest.raises(ValueError, match=r"1 images that cannot be used: \S*tumour/0\.png has no mask$"):
        class_folder_images(tmp_path, ["normal", "tumour"], tmp_path)


@pytest.mark.parametrize(("of_image", "of_mask"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_masks_and_classes_with_accents_however_they_are_written(tmp_path, of_image, of_mask):
    """Two images of one name, whose masks are told apart by the folders."""
    source, masks = tmp_path / "images", tmp_path / "masks"
    for value, folder in enumerate(("Drüse", "Krebs é")):
        write_tile(source / unicodedata.normalize(of_image, folder) / unicodedata.normalize(of_image, "Fläche.png"), value)
        write_tile(masks / unicodedata.normalize(of_mask, folder) / unicodedata.normalize(of_mask, "fläche_mask.png"), 255)
    classes = [unicodedata.normalize(of_mask, name) for name in ("Drüse", "Krebs é")]
    data = class_folder_images(source, classes, masks)
    assert rows(data, "label", "mask") == [
        (label, str(masks / folder / unicodedata.normalize(of_mask, "fläche_mask.png"))) for label, folder in enumerate(classes)
    ]


def test_masks_that_are_annotations_of_several_classes(folder, tmp_path):
    drawn = collection(feature([square(10, 10, 9)], "Tumor"), feature([square(20, 20, 9)], "Stroma"))
    for name in ("p3_a", "p4_a", "p5 a"):
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / f"masks/{name}.geojson").write_text(drawn)
    with pytest.raises(ValueError, match=r"p3_a\.geojson: .* found Tumor \(1\), Stroma \(1\)"):
        class_folder_images(folder, ["normal", "tumour"], tmp_path / "masks")
    options = {"tumour_classes": ["Tumor"], "annotation_frame": "level0"}
    data = class_folder_images(folder, ["normal", "tumour"], tmp_path / "masks", **options)
    assert rows(data, "label", "tumour_classes", "annotation_frame") == [(0, None, None)] * 2 + [(1, "Tumor", "level0")] * 3


def test_all_that_is_wrong_in_one_message(folder, tmp_path, caplog):
    """No mask, a mask of another size, annotations outside the slide, a slide without a pixel size, one that is cut off."""
    masks = tmp_path / "masks"
    write_tile(masks / "p4_a.png", 255, 20)
    (masks / "p5 a.geojson").write_text(collection(feature([square(900, 900, 50)])))
    tifffile.imwrite(folder / "normal/bare.tif", np.full((64, 64, 3), 9, np.uint8), photometric="rgb", tile=(32, 32))
    (folder / "normal/cut.svs").write_bytes((folder / "tumour/p5 a.TIF").read_bytes()[:200])
    with caplog.at_level(logging.CRITICAL), pytest.raises(ValueError, match="5 images that cannot be used") as caught:
        class_folder_images(folder, ["normal", "tumour"], masks)
    message = str(caught.value)
    for part in (
        "bare.tif does not state its pixel size: give mpp",
        "cut.svs",
        "p3_a.png has no mask",
        "is 20 x 20 px",
        "p5 a.geojson lie outside the image of 300 x 300 px",
    ):
        assert part in message
    data = class_folder_images(folder, ["normal", "tumour"], masks, allow_missing=True)
    assert rows(data, "label") == [(0,), (0,)]


def test_an_image_that_is_there_twice(folder):
    copy = folder / "tumour/copy of p3.png"
    copy.write_bytes((folder / "tumour/p3_a.png").read_bytes())
    data = class_folder_images(folder, ["normal", "tumour"])
    assert len(data.records) == 5
    assert data.remarks == ["left out 1 copies: files with the same content: p3_a.png (of copy of p3.png)"]
    copy.rename(folder / "normal/p3.png")
    with pytest.raises(ValueError, match=r"tumour/p3_a\.png is the same image as .*normal/p3\.png, in another class or split"):
        class_folder_images(folder, ["normal", "tumour"])


def test_folders_that_are_none(tmp_path, folder):
    with pytest.raises(ValueError, match="nothing does not exist"):
        class_folder_images(tmp_path / "nothing")
    (tmp_path / "empty/0").mkdir(parents=True)
    with pytest.raises(ValueError, match="contains no folders"):
        class_folder_images(tmp_path / "empty/0")
    (tmp_path / "empty/1").mkdir()
    with pytest.raises(ValueError, match="contains no image in its folders 0, 1"):
        class_folder_images(tmp_path / "empty")
    (folder / "train").mkdir()
    with pytest.raises(ValueError, match="contains folders of splits and others: normal, tumour"):
        class_folder_images(folder)
