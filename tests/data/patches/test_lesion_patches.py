"""Centred patches of a generated slide: where they lie, what is dropped, and what the data set reads there."""

import importlib

import numpy as np
import pytest
from PIL import Image

from shared.data import RegionDataset, TissueCache, check_images, load_manifest, slide_patches, write_manifest
from shared.synthetic import write_slide

# The package has the function by this name.
MODULE = importlib.import_module("shared.data.patches.lesion_patches")
WIDTH, HEIGHT = 1800, 1280
CLASSES = ("normal", "benign", "in situ", "invasive")
# (class, left, top, right, bottom) in level-0 pixels of 1 um; patches are 16 px at 8 um: 128 level-0 px.
BENIGN = (1, 200, 240, 264, 304)
CORNER = (2, 0, 0, 32, 24)
LARGE = (3, 640, 640, 896, 896)
ON_GLASS = (3, 1410, 600, 1474, 664)
LESIONS = (BENIGN, CORNER, LARGE, ON_GLASS)
EXTENT = 128


def outline_of(lesion):
    index, left, top, right, bottom = lesion
    points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in points)
    return f'<Region Text="{CLASSES[index]}"><Vertices>{vertices}</Vertices></Region>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tissue left of x = 1440, glass right of it; the lesions as image and as annotations."""
    folder = tmp_path_factory.mktemp("slide")
    rng = np.random.default_rng(0)
    image = np.full((HEIGHT, WIDTH, 3), 243, np.uint8)
    image[:, :1440] = np.array([190, 90, 160]) + rng.integers(-20, 20, (HEIGHT, 1440, 3))
    write_slide(folder / "slide.tif", image, mpp=1.0)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for index, left, top, right, bottom in LESIONS:
        mask[top:bottom, left:right] = index
    Image.fromarray(mask).save(folder / "mask.png")
    regions = "".join(map(outline_of, LESIONS))
    (folder / "mask.xml").write_text(
        f'<Annotations MicronsPerPixel="1"><Annotation><Regions>{regions}</Regions></Annotation></Annotations>'
    )
    return folder


@pytest.fixture
def record(folder):
    return {"image": str(folder / "slide.tif"), "mask": str(folder / "mask.png"), "case_id": "a", "split": "train", "row": 2}


def patches_of(record, **options):
    return slide_patches(record, 16, 8.0, len(CLASSES), CLASSES, **options)


def test_places_and_labels(record):
    patches = patches_of(record)
    assert {(p["width_px"], p["height_px"], p["case_id"], p["split"], p["mask"]) for p in patches} == {
        (EXTENT, EXTENT, "a", "train", record["mask"])
    }
    places = {label: [(p["x"], p["y"]) for p in patches if p["label"] == label] for label in (1, 2, 3)}
    assert places[1] == [(232 - 64, 272 - 64)]
    # Moved inside the slide.
    assert places[2] == [(0, 0)]
    # 32 x 32 of 16 x 16 mask pixels: ceil(1 + 4) patches. The one on the border to the glass is dropped.
    assert len(places[3]) == 5
    assert all(640 - 64 <= x <= 896 - 64 and 640 - 64 <= y <= 896 - 64 for x, y in places[3])
    assert patches == sorted(patches, key=lambda p: (p["y"], p["x"]))


@pytest.mark.parametrize(("min_tissue", "kept"), [(0.0, True), (0.65, True), (0.75, False)])
def test_tissue_decides(record, min_tissue, kept):
    # Centred on x = 1416, so that 88 of 128 px are tissue: 69 %.
    shifted = {**record, "mask": record["mask"].replace("mask.png", "shifted.png")}
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[600:664, 1384:1448] = 3
    Image.fromarray(mask).save(shifted["mask"])
    assert bool(patches_of(shifted, min_tissue=min_tissue)) == kept


def test_annotation_files_give_the_same(record, folder):
    drawn = {**record, "mask": str(folder / "mask.xml")}
    assert [{**p, "mask": ""} for p in patches_of(drawn)] == [{**p, "mask": ""} for p in patches_of(record)]


@pytest.mark.parametrize("mask", ["mask.png", "mask.xml"])
def test_the_data_set_reads_them(record, folder, tmp_path, mask):
    write_manifest(patches_of({**record, "mask": str(folder / mask)}), tmp_path / "patches.csv")
    records = load_manifest(tmp_path / "patches.csv", split="train", require=("label", "mask"), num_classes=4)
    dataset = RegionDataset(records, 16, 8.0, pixel_labels="mask", num_classes=4, class_names=CLASSES)
    check_images([dataset])
    items = list(dataset)
    assert all(item["image"].shape == (3, 16, 16) and item["mask"].shape == (1, 16, 16) for item in items)
    benign = next(item for item in items if item["label"] == 1)["mask"][0]
    # 64 level-0 px are 8 of 16 in the middle.
    expected = np.zeros((16, 16), np.uint8)
    expected[4:12, 4:12] = 1
    assert np.array_equal(benign, expected)
    for item in items:
        assert set(item["mask"].unique().tolist()) <= {0, item["label"]}
        assert (item["mask"] > 0).float().mean() >= 0.04


def test_background_is_tissue_without_lesions(record):
    assert not [p for p in patches_of(record) if p["label"] == 0]
    patches = patches_of(record, num_background=7)
    background = [p for p in patches if p["label"] == 0]
    assert len(background) == 7
    assert len(patches) == 7 + len(patches_of(record))
    dataset = RegionDataset(background, 16, 8.0, pixel_labels="mask", num_classes=4)
    assert not any(item["mask"].any() for item in dataset)
    assert all(item["image"].float().mean() < 200 for item in dataset)
    assert background == [p for p in patches_of(record, num_background=7) if p["label"] == 0]
    assert background != [p for p in patches_of(record, num_background=7, seed=1) if p["label"] == 0]
    # 14 columns and 10 rows fit on the slide, 11 columns of them on the tissue.
    every = [p for p in patches_of(record, num_background=1000) if p["label"] == 0]
    assert 60 < len(every) < 110


def test_a_slide_of_class_0_needs_no_mask(record):
    normal = {**record, "mask": None, "label": 0}
    assert patches_of(normal) == []
    assert {p["label"] for p in patches_of(normal, num_background=2)} == {0}


def test_one_patch_a_place(record, folder):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[320:416, 320:416] = 2
    mask[336:400, 336:400] = 0
    mask[360:376, 360:376] = 3
    Image.fromarray(mask).save(folder / "ring.png")
    (patch,) = patches_of({**record, "mask": str(folder / "ring.png")})
    # The ring is larger than what it holds.
    assert (patch["x"], patch["y"], patch["label"]) == (368 - 64, 368 - 64, 2)


def test_blocks_give_the_whole_mask(record, monkeypatch):
    expected = patches_of(record)
    monkeypatch.setattr(MODULE, "_BLOCK_PX", (16 * 37) ** 2 // 4)
    assert patches_of(record) == expected


def test_a_kept_tissue_is_used(record, tmp_path):
    cache = TissueCache(tmp_path, method="saturation")
    assert patches_of(record, tissue=cache) == patches_of(record)
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_errors_name_the_row(record, folder, monkeypatch):
    with pytest.raises(ValueError, match=r"row 2, .*slide\.tif: lesions can only be found in a mask"):
        patches_of({**record, "mask": None})
    with pytest.raises(ValueError, match=r"row 2, .*mask\.png has a pixel of value 3: with 3 classes"):
        slide_patches(record, 16, 8.0, 3, CLASSES[:3])
    with pytest.raises(ValueError, match=r"row 2, .*mask\.xml.*'invasive', expected one of 'normal', 'benign', 'in situ'"):
        slide_patches({**record, "mask": str(folder / "mask.xml")}, 16, 8.0, 3, CLASSES[:3])
    monkeypatch.setattr(MODULE, "_LARGEST_MASK_PX", 1000)
    with pytest.raises(ValueError, match=r"row 2, .*at 8 um per pixel the mask would have 225 x 160 px"):
        patches_of(record)
