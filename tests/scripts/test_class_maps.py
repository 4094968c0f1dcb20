"""The picture of slides that `benchmark.py shares` draws; real trainings are in the bundle's own tests."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from torch import nn

from scripts.benchmarks import class_maps
from scripts.benchmarks.slides_of_runs import MAPS, SLIDES
from shared.data import load_manifest, write_manifest
from shared.inference import Compute, Outputs, SlideMapper, Tiles, Tissue
from shared.sweeps.sweep import METRICS, Sweep

TRAINING = str(Path(__file__).parents[2] / "bundles" / "joint_seg_cls" / "configs" / "train.json")
CLASS_NAMES = ["normal", "benign", "invasive"]
# (height, width) of a slide; in (left, top, right, bottom) its lesion, whose right half is invasive.
SHAPE, LESION, MIDDLE = (800, 1000), (400, 200, 800, 600), 600


class Brightest(nn.Module):
    """The class of the brightest channel, or always the same one."""

    def __init__(self, always=None):
        super().__init__()
        self.always = always

    def forward(self, images):
        if self.always is None:
            return images
        return nn.functional.one_hot(images[:, 0].long() * 0 + self.always, 3).movedim(-1, 1).float() * 9


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """The manifest of a slide with a lesion, and of one without: red is normal, green benign, blue invasive."""
    folder = tmp_path_factory.mktemp("slides")
    left, top, right, bottom = LESION
    mask = np.zeros(SHAPE, np.uint8)
    mask[top:bottom, left:right] = 1
    mask[top:bottom, MIDDLE:right] = 2
    for name, classes in (("lesion", mask), ("nothing", np.zeros_like(mask))):
        pixels = np.array([(220, 20, 20), (20, 220, 20), (20, 20, 220)], np.uint8)[classes]
        options = {"tile": (256, 256), "compression": "zlib", "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(folder / f"{name}.tif", pixels, photometric="rgb", metadata=None, **options)
    Image.fromarray(mask).save(folder / "mask.png")
    (folder / "slides.csv").write_text("image,label,mask,split\nlesion.tif,2,mask.png,test\nnothing.tif,0,,test\n")
    return folder / "slides.csv"


@pytest.fixture
def sweep(slides, tmp_path):
    """Of finished runs with maps: S of a twentieth finds everything, S+C takes all for benign; others are not drawn."""
    made = Sweep([TRAINING], {"seed": [3, 4], "masked_share": [0.5, 0.05], "mode": ["S", "S+C"]}, tmp_path / "sweep")
    for values in made.combinations:
        folder = made.folder(values)
        (folder / METRICS).parent.mkdir(parents=True)
        (folder / METRICS).touch()
        if (values["seed"], values["masked_share"]) != (3, 0.05):
            continue
        write_manifest(load_manifest(slides, "test", num_classes=3), folder / SLIDES)
        network = Brightest(None if values["mode"] == "S" else 1)
        SlideMapper(
            network,
            mpp=0.5,
            class_names=CLASS_NAMES,
            tiles=Tiles(tile_size_px=64, margin_px=0),
            tissue=Tissue(only=False),
            outputs=Outputs(map_downsample=1),
            compute=Compute(amp=False, device="cpu"),
        ).run(folder / SLIDES, folder / MAPS)
    return made


def test_slides_are_drawn_around_their_lesions(sweep, tmp_path, monkeypatch):
    drawn = []
    write = class_maps.write_examples
    monkeypatch.setattr(
        class_maps, "write_examples", lambda rows, *more, **named: (drawn.extend(rows), write(rows, *more, **named))
    )
    class_maps.write_slide_maps(sweep, 5, tmp_path / "maps.png")
    assert [row.title for row in drawn] == ["lesion\nlabel 2", "nothing\nlabel 0"]
    right, benign = (f"{mode}, 5 % of the masks" for mode in ("S", "S+C"))
    assert all(list(row.panels) == ["truth", right, benign] for row in drawn)

    # 400 px and a tenth of it on each side are 480 px, from (360, 160), drawn as 400: pixel i has its middle at 1.2 (i + 0.5).
    expected = np.zeros((400, 400), np.uint8)
    expected[33:367, 33:367] = 1
    expected[33:367, 200:367] = 2
    for name in ("truth", right):
        np.testing.assert_array_equal(drawn[0].panels[name], expected)
    assert (drawn[0].panels[benign] == 1).all()
    assert drawn[0].image[200, 100].tolist() == [20, 220, 20]

    # Without a lesion the whole slide is shown.
    assert drawn[1].image.shape == (320, 400, 3)
    assert not drawn[1].panels["truth"].any()
    assert not drawn[1].panels[right].any()
    with Image.open(tmp_path / "maps.png") as picture:
        assert picture.width > picture.height > 400


def test_without_a_finished_run_nothing_is_drawn(tmp_path):
    sweep = Sweep([TRAINING], {"seed": [0], "masked_share": [0.05], "mode": ["S"]}, tmp_path / "sweep")
    class_maps.write_slide_maps(sweep, 1, tmp_path / "maps.png")
    assert not (tmp_path / "maps.png").exists()
