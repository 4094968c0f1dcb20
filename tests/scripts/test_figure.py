"""`scripts/figure.py` as a user starts it, on maps that were made before."""

import sys

import numpy as np
import pytest
import tifffile
from PIL import Image
from torch import nn

from scripts import figure
from scripts.evaluation import map_figure
from shared.inference import Compute, SlideMapper, Tiles, Tissue


class Redness(nn.Module):
    """Tumour where red is more than green by a margin."""

    def __init__(self, margin):
        super().__init__()
        self.margin = margin

    def forward(self, images):
        return (images[:, :1] - images[:, 1:2] - self.margin) / 3


def mapped(manifest, folder, margin):
    """Maps at 0.5 um per pixel, of tiles that state no pixel size."""
    options = {
        "tiles": Tiles(tile_size_px=64, margin_px=0),
        "tissue": Tissue(only=False),
        "compute": Compute(amp=False, device="cpu"),
    }
    SlideMapper(Redness(margin), mpp=0.5, threshold=0.5, **options).run(manifest, folder)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A tumour image, red in its right half, a normal one, and one whose mask is not known."""
    folder = tmp_path_factory.mktemp("images")
    for name in ("tumour", "normal", "unknown"):
        rgb = np.full((64, 96, 3), 170, np.uint8)
        mask = np.zeros((64, 96), np.uint8)
        if name != "normal":
            rgb[:, 48:], mask[:, 48:] = (220, 20, 60), 255
        Image.fromarray(rgb).save(folder / f"{name}.png")
        Image.fromarray(mask).save(folder / f"{name}_mask.png")
    rows = ["tumour.png,1,tumour_mask.png,test", "normal.png,0,,test", "unknown.png,1,,train"]
    (folder / "images.csv").write_text("\n".join(["image,label,mask,split", *rows, ""]))
    mapped(folder / "images.csv", folder / "maps", 140)
    mapped(folder / "images.csv", folder / "nothing", 255)
    return folder / "images.csv"


@pytest.fixture
def start(monkeypatch, capsys, manifest, tmp_path):
    """Run the script on the two methods' maps, and return what it drew: rows, and what was printed."""
    drawn = []
    write = map_figure.write_examples
    monkeypatch.setattr(map_figure, "write_examples", lambda rows, *more: (drawn.extend(rows), write(rows, *more)))
    maps = [f"Right={manifest.parent / 'maps'}", f"a=b={manifest.parent / 'nothing'}"]

    def run(*arguments, maps=maps):
        words = ["figure.py", "--manifest", manifest, "--maps", *maps, "--out", tmp_path / "figure.png", *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        figure.main()
        return drawn, capsys.readouterr().out

    return run


def test_methods_stand_beside_the_truth(start, tmp_path):
    rows, printed = start("--split", "test")
    assert printed == f"2 images, 2 maps of each: {tmp_path / 'figure.png'}\n"
    assert [row.title for row in rows] == ["tumour\nlabel 1", "normal\nlabel 0"]
    assert [list(row.panels) for row in rows] == [["truth", "Right", "a=b"]] * 2
    half = np.zeros((64, 96), np.float32)
    half[:, 48:] = 1
    for row, expected in zip(rows, (half, np.zeros_like(half)), strict=True):
        np.testing.assert_array_equal(row.panels["truth"], expected)
        np.testing.assert_array_equal(row.panels["Right"], expected)
        assert not row.panels["a=b"].any()
    assert rows[0].image[0, 0].tolist() == [170] * 3
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.size[0] > picture.size[1] > 200


@pytest.mark.parametrize(
    ("name", "begins", "ends"),
    [
        ("a.png", b"\x89PNG\r\n", b"IEND\xaeB`\x82"),
        ("a.jpg", b"\xff\xd8\xff", b"\xff\xd9"),
        ("a.JPEG", b"\xff\xd8\xff", b"\xff\xd9"),
        ("a.pdf", b"%PDF-", b"%%EOF"),
        ("a.svg", b"<?xml", b"</svg>"),
    ],
)
def test_a_picture_is_what_its_ending_says(start, tmp_path, name, begins, ends):
    written = []
    for folder in ("first", "second"):
        start("--out", tmp_path / folder / name)
        written.append((tmp_path / folder / name).read_bytes())
    assert written[0].startswith(begins)
    assert written[0].rstrip().endswith(ends)
    assert written[0] == written[1]


@pytest.mark.parametrize("name", ["figure.tif", "figure", "figure.png.bmp"])
def test_other_endings_are_refused(start, tmp_path, capsys, name):
    with pytest.raises(SystemExit) as stop:
        start("--out", tmp_path / name)
    assert stop.value.code == 2
    assert f"{name}: expected one of the endings .png, .jpg, .jpeg, .pdf, .svg, found " in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_images_by_name_smaller_and_in_shades(start):
    rows, _ = start("--images", "unknown", "tumour", "--side_px", 48, "--shades")
    assert [row.title.split("\n")[0] for row in rows] == ["unknown", "tumour"]
    assert rows[0].panels["truth"] is None
    assert {panel.shape for row in rows for panel in row.panels.values() if panel is not None} == {(32, 48)}
    # A logit of (220 - 20 - 255) / 3 is a probability of 1e-8, one of (200 - 140) / 3 nearly 1.
    assert rows[0].panels["Right"][:, 25:].min() > 0.99
    assert rows[0].panels["a=b"].max() < 0.01


def test_a_whole_slide_is_drawn_at_a_fraction_of_its_size(start, tmp_path):
    rgb, mask = np.full((800, 1000, 3), (200, 120, 180), np.uint8), np.zeros((800, 1000), np.uint8)
    rgb[200:600, 400:800], mask[200:600, 400:800] = (220, 20, 60), 1
    options = {"tile": (256, 256), "compression": "zlib", "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "slide.tif", rgb, photometric="rgb", metadata=None, **options)
    Image.fromarray(mask * 255).save(tmp_path / "mask.png")
    (tmp_path / "slides.csv").write_text("image,label,mask,split\nslide.tif,1,mask.png,test\n")
    mapped(tmp_path / "slides.csv", tmp_path / "maps", 140)
    (row,), _ = start("--manifest", tmp_path / "slides.csv", "--side_px", 100, maps=[f"Map={tmp_path / 'maps'}"])
    assert row.image.shape == (80, 100, 3)
    expected = np.zeros((80, 100), np.float32)
    expected[20:60, 40:80] = 1
    np.testing.assert_array_equal(row.panels["truth"], expected)
    np.testing.assert_array_equal(row.panels["Map"], expected)


def test_a_named_image_is_drawn_with_all_its_rows(start, manifest):
    """Such as the regions of a slide: the first alone would be taken for the whole."""
    regions = manifest.parent / "regions.csv"
    rows = [f"tumour.png,{x},0,48,64,{label},tumour_mask.png" for x, label in ((0, 0), (48, 1))]
    regions.write_text("\n".join(["image,x,y,width_px,height_px,label,mask", *rows, ""]))
    mapped(regions, manifest.parent / "maps_of_regions", 140)
    drawn, _ = start("--manifest", regions, "--images", "tumour", maps=[f"Map={manifest.parent / 'maps_of_regions'}"])
    assert [(row.panels["truth"].mean(), row.panels["Map"].mean()) for row in drawn] == [(0, 0), (1, 1)]


@pytest.mark.parametrize(
    ("maps", "arguments", "said"),
    [
        (["maps"], [], "--maps maps: expected TITLE=FOLDER"),
        (["A=nowhere"], [], "nowhere: expected maps and their table slides.csv"),
        (["A={maps}", "A={maps}"], [], "expected a title of its own for each column"),
        (["A={maps}"], ["--images", "tumor"], "no row of the manifest has an image called tumor"),
        (["A={half}"], [], "has no finished map of it (not begun): map it first"),
    ],
)
def test_what_is_wrong_is_named(start, manifest, tmp_path, maps, arguments, said):
    half = manifest.parent / "half"
    if "half" in maps[0] and not half.exists():
        (manifest.parent / "half.csv").write_text("image,label,mask,split\ntumour.png,1,tumour_mask.png,test\n")
        mapped(manifest.parent / "half.csv", half, 140)
    with pytest.raises(SystemExit, match="error: ") as caught:
        start(*arguments, maps=[text.format(maps=manifest.parent / "maps", half=half) for text in maps])
    assert said in str(caught.value)
    assert not (tmp_path / "figure.png").exists()


@pytest.mark.parametrize("name", ["tumour.png", "tumour_mask.png"])
def test_a_picture_replaces_no_image_of_the_manifest(start, manifest, name):
    file = manifest.parent / name
    before = file.read_bytes()
    with pytest.raises(SystemExit, match=f"error: .*{name} is a file to read, and {name}.*Give another output folder"):
        start("--split", "test", "--out", file)
    assert file.read_bytes() == before
