"""Maps of two programs against NumPy on all pixels; pictures that are no maps are refused."""

import json
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from sklearn.metrics import jaccard_score, roc_auc_score

from shared.data import TissueCache
from shared.evaluation.maps.agreement import compare_maps
from shared.evaluation.maps.map_folder import MapFolder
from shared.evaluation.maps.picture_maps import PictureMaps, at_pixels
from shared.inference import SlideMapper
from tests.inference.flat_options import grouped

THRESHOLDS = (0.4, 0.3)


@pytest.fixture
def maps(tmp_path, cohort, paint_finder):
    """Ours, of four slides."""
    mapper = SlideMapper(
        paint_finder(8), **grouped(mpp=1.0, tile_size_px=32, margin_px=8, threshold=0.4, device="cpu", amp=False)
    )
    rows = "".join(f"{record['image']}\n" for record in cohort)
    (tmp_path / "slides.csv").write_text(f"image\n{rows}")
    mapper.run(tmp_path / "slides.csv", tmp_path / "ours")
    return MapFolder(tmp_path / "ours")


def ours_of(maps, record):
    name = record["image"].split("/")[-1].removesuffix(".tif")
    return name, tifffile.imread(maps.folder / f"{name}.ome.tif", key=0)


@pytest.fixture
def theirs(tmp_path, maps, cohort):
    """Of three of them, half as fine and noisy."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for record in cohort[:3]:
        name, values = ours_of(maps, record)
        noisy = np.clip(values[::2, ::2] / 2 + rng.normal(60, 30, values[::2, ::2].shape), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def test_scores_against_numpy(maps, theirs, cohort, tmp_path):
    tissue = TissueCache(tmp_path / "tissue")
    # Before the maps are looked at.
    with pytest.raises(ValueError, match=r"thresholds in \(0, 1\], got 0.4 for ours and 30 for theirs"):
        compare_maps(maps, PictureMaps(theirs), cohort, tissue, (0.4, 30))
    region = dict.fromkeys(("x", "y", "width_px", "height_px"), 64)
    with pytest.raises(ValueError, match="only maps of whole slides are scored, and this row is a region of a slide"):
        compare_maps(maps, PictureMaps(theirs), [cohort[0] | region], tissue, THRESHOLDS)
    with pytest.raises(ValueError, match="1 of 4 slides lack"):
        compare_maps(maps, PictureMaps(theirs), cohort, tissue, THRESHOLDS)
    metrics, rows = compare_maps(maps, PictureMaps(theirs), cohort, tissue, THRESHOLDS, allow_missing=True)
    ours, other, truth = [], [], []
    for record in cohort[:3]:
        name, values = ours_of(maps, record)
        pixel_px = float(maps.row(record)["map_mpp"]) / float(maps.row(record)["mpp"])
        with Image.open(theirs / f"{name}.png") as picture, Image.open(record["mask"]) as mask:
            width, height = mask.size
            stored, true = np.asarray(picture), np.asarray(mask) > 0
        with maps.open(record) as source:
            is_tissue = maps.grid(record, source).slide_tissue(tissue)(0, len(values))
        for y, x in np.argwhere(is_tissue):
            at = (y + 0.5) * pixel_px, (x + 0.5) * pixel_px
            ours.append(values[y, x])
            other.append(
                stored[
                    min(int(at[0] / height * len(stored)), len(stored) - 1),
                    min(int(at[1] / width * stored.shape[1]), stored.shape[1] - 1),
                ]
            )
            truth.append(at[0] < height and at[1] < width and true[int(at[0]), int(at[1])])
    ours, other, truth = np.array(ours) / 255, np.array(other) / 255, np.array(truth)
    found = metrics["agreement"]
    assert found["correlation"] == pytest.approx(np.corrcoef(ours, other)[0, 1])
    assert found["mean_difference"] == pytest.approx(np.abs(ours - other).mean())
    assert found["iou"] == pytest.approx(jaccard_score(ours >= 0.4, other >= 0.3))
    assert (found["share_ours"], found["share_theirs"]) == pytest.approx(((ours >= 0.4).mean(), (other >= 0.3).mean()))
    assert metrics["pixels_tissue"]["ours"]["auc"] == pytest.approx(roc_auc_score(truth, ours))
    assert metrics["pixels_tissue"]["theirs"]["auc"] == pytest.approx(roc_auc_score(truth, other))
    assert (metrics["num_slides"], metrics["num_missing"], metrics["num_with_truth"]) == (3, 1, 3)
    assert [row["slide"] for row in rows] == [ours_of(maps, record)[0] for record in cohort[:3]]
    json.dumps(metrics, allow_nan=False)


def test_two_slides_do_not_share_a_picture(maps, theirs, cohort, tmp_path):
    name = cohort[0]["image"].rpartition("/")[2]
    twin = cohort[0] | {"image": str(tmp_path / "other" / name), "row": 9}
    tissue = TissueCache(tmp_path / "tissue")
    with pytest.raises(ValueError, match=rf"row 9, \S*other/{name}: .* its map is also that of {cohort[0]['image']} \(row 2\)"):
        compare_maps(maps, PictureMaps(theirs), [*cohort, twin], tissue, THRESHOLDS, allow_missing=True)


def test_our_own_map_agrees_with_itself(maps, cohort, tmp_path):
    """As a picture of the very pixels: those beyond the slide's border do not belong to the slide."""
    for record in cohort:
        name, values = ours_of(maps, record)
        row = maps.row(record)
        pixel_px = float(row["map_mpp"]) / float(row["mpp"])
        height, width = (round(int(row[f"{side}_px"]) / pixel_px) for side in ("height", "width"))
        (tmp_path / "same").mkdir(exist_ok=True)
        Image.fromarray(values[:height, :width]).save(tmp_path / f"same/{name}.png")
    found = compare_maps(maps, PictureMaps(tmp_path / "same"), cohort, TissueCache(tmp_path / "tissue"), (0.4, 0.4))[0][
        "agreement"
    ]
    assert found["correlation"] > 0.99
    assert found["iou"] > 0.97


def test_a_picture_of_every_pixel_is_taken_as_it_is():
    picture = torch.randint(0, 256, (7, 5), dtype=torch.uint8).numpy()
    assert (at_pixels(picture, (50, 70), (7, 5), 10.0) == picture).all()
    # A map that reaches beyond the slide repeats its last pixels.
    assert (at_pixels(picture, (50, 70), (8, 5), 10.0)[-1] == picture[-1]).all()


def test_the_encoding_of_the_released_maps(tmp_path):
    """Black is glass; on tissue blue is 255 and red the probability."""
    released = np.array([[(0, 0, 0), (0, 0, 255)], [(76, 0, 255), (255, 0, 255)]], np.uint8)
    Image.fromarray(released).save(tmp_path / "TCGA-05-4244-01A-01-BS1.90f043f6.svs.png")
    assert PictureMaps(tmp_path).read("somewhere/TCGA-05-4244-01A-01-BS1.90f043f6.svs", (448, 448)).tolist() == [
        [0, 0],
        [76, 255],
    ]


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.full((60, 80, 3), 7, np.uint8), "expected an 8-bit grey picture of probabilities, .*found mode 'RGB'"),
        (np.full((60, 80, 3), (7, 0, 0), np.uint8), "found mode 'RGB'"),
        (np.zeros((60, 80), np.uint16), "found mode 'I;16'"),
        (np.zeros((60, 60), np.uint8), "60 x 60 pixels does not have the proportions of its slide of 800 x 600"),
        (None, "cannot be read"),
    ],
)
def test_pictures_that_are_no_maps(tmp_path, picture, said):
    path = tmp_path / "slide.png"
    path.write_bytes(b"none") if picture is None else Image.fromarray(picture).save(path)
    with pytest.raises(ValueError, match=said) as error:
        PictureMaps(tmp_path).read("somewhere/slide.svs", (800, 600))
    assert str(path) in str(error.value)


def test_the_limit_of_pictures_is_said_and_is_the_only_one(tmp_path, monkeypatch):
    """Pillow's own, for files from strangers, is lower and names no remedy."""
    small, large = (np.zeros((6, 8), np.uint8), tmp_path / "large.png")
    Image.fromarray(small).save(tmp_path / "small.png")
    content = bytearray((tmp_path / "small.png").read_bytes())
    # Width, height and checksum of the header; nothing of the pixels is looked at.
    content[16:24] = (20_000).to_bytes(4, "big") + (15_000).to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    large.write_bytes(content)
    with pytest.raises(ValueError, match=r"of at most 268435456 pixels; found mode 'L' and 20000 x 15000 pixels"):
        PictureMaps(tmp_path).read("large.svs", (20_000, 15_000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(PictureMaps(tmp_path).read("small.svs", (8, 6)), small)


def test_maps_of_tcga_are_found_by_their_barcode(tmp_path):
    mask = Image.new("1", (8, 6))
    mask.putpixel((3, 2), 1)
    mask.save(tmp_path / "TCGA-CR-7395-01A-01-TS1.png")
    maps = PictureMaps(tmp_path)
    slide = "TCGA-CR-7395-01A-01-TS1.0b7d5e64-8d3b-4f0e-9f5c-1a2b3c4d5e6f.svs"
    values = maps.read(slide, (80, 60))
    assert values.sum() == values[2, 3] == 255
    assert maps.path_of("TCGA-CR-7395-11A-01-TS1.svs") is None
    (tmp_path / "b").mkdir()
    mask.save(tmp_path / "b" / slide.replace(".svs", ".png"))
    with pytest.raises(ValueError, match="are maps of one slide"):
        PictureMaps(tmp_path)
    with pytest.raises(ValueError, match="found none"):
        PictureMaps(tmp_path / "nothing")
