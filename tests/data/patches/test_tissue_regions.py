"""Regions of a generated slide: inside it, on tissue, labelled by its mask."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.data import TissueCache, load_manifest, pixel_target, read_image, slide_regions, write_manifest
from shared.synthetic import write_slide

WIDTH, HEIGHT, SIDE = 1000, 700, 256


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Tissue left of x = 800, glass right of it; tumour in x 300..400, y 300..400: in the tile of row 1, column 1 only."""
    folder = tmp_path_factory.mktemp("slide")
    rng = np.random.default_rng(0)
    image = np.full((HEIGHT, WIDTH, 3), 243, np.uint8)
    image[:, :800] = np.array([190, 90, 160]) + rng.integers(-20, 20, (HEIGHT, 800, 3))
    write_slide(folder / "slide.tif", image, mpp=0.5)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[300:400, 300:400] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    (folder / "slides.csv").write_text("image,label,mask,case_id,split\nslide.tif,1,mask.png,a,train\n")
    return load_manifest(folder / "slides.csv")[0]


def test_labels_and_places(slide: dict[str, object]) -> None:
    regions = slide_regions(slide, SIDE, mpp=0.5, min_tissue=0.5)
    # 3 columns of 256 px fit into 1000 px and 2 rows into 700 px; all are on tissue, which ends at x = 800.
    assert [(r["x"], r["y"]) for r in regions] == [(0, 0), (256, 0), (512, 0), (0, 256), (256, 256), (512, 256)]
    assert [r["label"] for r in regions] == [0, 0, 0, 0, 1, 0]
    assert regions[4]["area"] == pytest.approx(100 * 100 / 256**2, abs=1e-4)
    assert {(r["width_px"], r["height_px"], r["case_id"], r["split"]) for r in regions} == {(SIDE, SIDE, "a", "train")}


def test_several_classes_by_the_one_that_covers_most(slide: dict[str, object], tmp_path: Path) -> None:
    classes = np.zeros((HEIGHT, WIDTH), np.uint8)
    classes[:256, :100], classes[:256, 100:256] = 3, 1  # more of 1
    classes[:256, 256:356], classes[:256, 356:456] = 1, 2  # alike: the higher one
    classes[300:310, 300:310] = 3
    Image.fromarray(classes).save(tmp_path / "classes.png")
    record = slide | {"mask": str(tmp_path / "classes.png")}
    regions = slide_regions(record, SIDE, mpp=0.5, num_classes=4)
    assert [r["label"] for r in regions] == [1, 2, 0, 0, 3, 0]
    assert [r["area"] for r in regions] == pytest.approx([1, 200 / 256, 0, 0, 100 / 256**2, 0], abs=1e-4)
    assert [r["label"] for r in slide_regions(record, SIDE, mpp=0.5)] == [1, 1, 0, 0, 1, 0]


def test_at_half_the_resolution(slide: dict[str, object]) -> None:
    regions = slide_regions(slide, 128, mpp=1.0, min_tissue=0.5)
    assert [(r["x"], r["width_px"], r["label"]) for r in regions][3:] == [(0, 256, 0), (256, 256, 1), (512, 256, 0)]
    image = read_image(regions[4], mpp=1.0, size_px=128)
    mask = pixel_target(regions[4], "mask", image.shape[-2:], mpp=1.0)
    assert image.shape == (3, 128, 128)
    # The square of 100 level-0 px is 50 px wide at twice the size of a pixel.
    assert int(mask.sum()) == 50 * 50


def test_glass_is_left_out(slide: dict[str, object]) -> None:
    columns = {r["x"] for r in slide_regions(slide, 100, mpp=0.5, min_tissue=0.5)}
    assert max(columns) == 700


def test_tissue_that_is_kept(slide: dict[str, object], tmp_path: Path) -> None:
    """Found once, and as edited there: here without the tissue of the upper row."""
    cache = TissueCache(tmp_path, mpp=4.0)
    regions = slide_regions(slide, SIDE, mpp=0.5, tissue=cache)
    assert regions == slide_regions(slide, SIDE, mpp=0.5)
    (file,) = tmp_path.iterdir()
    mask = np.array(Image.open(file))
    mask[: SIDE // 8] = 0
    Image.fromarray(mask).save(file)
    assert slide_regions(slide, SIDE, mpp=0.5, tissue=cache) == regions[3:]


def test_the_manifest_trains(slide: dict[str, object], tmp_path: Path) -> None:
    write_manifest(slide_regions(slide, SIDE, mpp=0.5), tmp_path / "regions.csv")
    records = load_manifest(tmp_path / "regions.csv", split="train", both_classes=True)
    assert [record["label"] for record in records] == [0, 0, 0, 0, 1, 0]
    assert read_image(records[4], mpp=0.5, size_px=SIDE).shape == (3, SIDE, SIDE)


def test_a_tumour_slide_needs_a_mask(slide: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"row 2.*slide\.tif.*can only be labelled by its mask"):
        slide_regions({**slide, "mask": None}, SIDE, mpp=0.5)
    assert {r["label"] for r in slide_regions({**slide, "mask": None, "label": 0}, SIDE, mpp=0.5)} == {0}


def test_a_mask_of_another_size_names_the_row(slide: dict[str, object], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((100, 100), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"row 2.*100 x 100"):
        slide_regions({**slide, "mask": str(tmp_path / "small.png")}, SIDE, mpp=0.5)
