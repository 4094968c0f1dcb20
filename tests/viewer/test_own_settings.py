"""Areas and shares that the page shows, of maps that were made with different settings in one folder."""

import json
import re

import numpy as np
import pytest
from torch import nn

from scripts.viewer.cohort import Maps, open_cohort
from scripts.viewer.layers import Layers
from scripts.viewer.outlines import draft_outlines, outlines_at
from shared.inference import SlideMapper
from tests.inference.conftest import GLASS, TISSUE, TUMOUR, Redness, write_pyramid
from tests.inference.flat_options import grouped
from tests.inference.test_class_maps import NAMES, Nearest

SETTINGS = {"tile_size_px": 256, "margin_px": 0, "min_area_um2": 0.0, "amp": False, "device": "cpu"}


class Doubtful(nn.Module):
    """Probability 0.88 everywhere, glass included, and 0.98 on tumour."""

    def forward(self, images):
        return 2 + 2.0 * (images[:, :1] - images[:, 1:2] > 140)


def write_tissue(path):
    """700 x 500 um of tissue, an 8th of it tumour, amid glass."""
    rgb = np.full((1600, 2000, 3), GLASS, np.uint8)
    rgb[320:1320, 320:1720] = TISSUE
    rgb[320:820, 320:670] = TUMOUR
    path.parent.mkdir(exist_ok=True)
    write_pyramid(path, rgb, num_levels=3)


def layers_of(folder):
    return Layers(open_cohort([folder]))


@pytest.fixture
def open_page(monkeypatch):
    """A page of a folder of maps that computes nothing in the background."""
    pytest.importorskip("bokeh", reason="needs bokeh (requirements-viewer.txt)")
    from bokeh.document import Document

    from scripts.viewer import redrawing
    from scripts.viewer.page import Page

    class Idle:
        def submit(self, *wish, is_draft):
            pass

    monkeypatch.setattr(redrawing, "_executor", Idle())
    return lambda folder: Page(layers_of(folder), Document())


def said(page, outlines):
    """What the page says of a slide's outlines."""
    from scripts.viewer.redrawing import Drawn

    page._draw([Drawn(outlines)])
    return page._message.text


def test_the_share_is_of_the_tissue_inside_the_outlines(tmp_path):
    """Outlines reach up to 50 um beyond the tissue, so that their area is more than that of the tissue."""
    write_tissue(tmp_path / "slides/a.tif")
    SlideMapper(Doubtful(), **grouped(**SETTINGS)).run(tmp_path / "slides", tmp_path / "maps")
    layers, row = layers_of(tmp_path / "maps"), Maps.of_folder(tmp_path / "maps").rows["a"]
    assert float(row["tumour_area_mm2"]) > 1.2 * float(row["tissue_area_mm2"])
    for threshold, share in ((0.5, 1), (0.501, 1), (0.8, 1), (0.95, 0.125), (1.0, 0)):
        assert outlines_at(layers, 0, "a", threshold).share == pytest.approx(share, abs=0.01), threshold
        assert draft_outlines(layers, 0, "a", threshold).share == pytest.approx(share, abs=0.02), threshold
    # The same as the table's, whether read there or counted here.
    assert [outlines_at(layers, 0, "a", threshold).share for threshold in (0.5, 0.501)] == [float(row["tumour_share"])] * 2


def test_the_share_of_a_slide_whose_map_is_no_whole_number_of_cells_wide(tmp_path):
    """A core biopsy that is tissue from side to side: what the last cells cover beyond the map is none."""
    rgb = np.full((6000, 210, 3), TISSUE, np.uint8)
    rgb[:1000] = GLASS
    rgb[3000:3500] = TUMOUR
    (tmp_path / "slides").mkdir()
    write_pyramid(tmp_path / "slides/a.tif", rgb, num_levels=3)
    SlideMapper(Doubtful(), **grouped(**SETTINGS)).run(tmp_path / "slides", tmp_path / "maps")
    layers = layers_of(tmp_path / "maps")
    assert outlines_at(layers, 0, "a", 0.95).share == pytest.approx(0.1, abs=0.01)


def test_the_page_says_the_share_of_the_table(open_page, tmp_path):
    write_tissue(tmp_path / "slides/a.tif")
    SlideMapper(Doubtful(), **grouped(**SETTINGS)).run(tmp_path / "slides", tmp_path / "maps")
    page = open_page(tmp_path / "maps")
    page._open("a")
    share = 100 * float(Maps.of_folder(tmp_path / "maps").rows["a"]["tumour_share"])
    assert share > 99
    assert said(page, outlines_at(page._layers, 0, "a", 0.5)).endswith(f" mm², {share:.1f} % of the tissue")
    # Half of the tissue's height, a quarter of its width.
    assert re.fullmatch(r"a .* mm², 12\.[3-7] % of the tissue", said(page, outlines_at(page._layers, 0, "a", 0.95)))


def test_no_share_of_other_tissue_is_shown(tmp_path, caplog):
    write_tissue(tmp_path / "slides/a.tif")
    SlideMapper(Doubtful(), **grouped(**SETTINGS)).run(tmp_path / "slides", tmp_path / "maps")
    settings = json.loads((tmp_path / "maps/settings.json").read_text())
    (tmp_path / "maps/settings.json").write_text(json.dumps({**settings, "tissue_only": False}))
    layers = layers_of(tmp_path / "maps")
    assert outlines_at(layers, 0, "a", 0.5).share == pytest.approx(1, abs=0.01)
    assert outlines_at(layers, 0, "a", 0.95).share is None
    assert "the share of tissue is shown at the map's own threshold alone" in caplog.text


def test_each_map_is_outlined_as_it_was_made(open_page, tmp_path):
    """Slides that are not mapped again keep their maps, and settings.json is that of the latest run."""
    for name in ("a", "b"):
        write_tissue(tmp_path / name / f"{name}.tif")
    maps = tmp_path / "maps"
    SlideMapper(Doubtful(), threshold=0.95, **grouped(**SETTINGS)).run(tmp_path / "a", maps)
    SlideMapper(Doubtful(), threshold=0.8, **grouped(**SETTINGS | {"min_area_um2": 9e6})).run(tmp_path / "b", maps)
    layers, found = layers_of(maps), Maps.of_folder(maps)
    assert [found.outlining(name).threshold for name in ("a", "b")] == [0.95, 0.8]
    areas = [outlines_at(layers, 0, name, found.outlining(name).threshold).area_mm2 for name in ("a", "b")]
    assert areas == pytest.approx([float(found.rows[name]["tumour_area_mm2"]) for name in ("a", "b")], abs=1e-9)
    assert areas[0] > 0
    assert areas[1] == 0
    page = open_page(maps)
    for name, threshold in (("a", 0.95), ("b", 0.8)):
        page._open(name)
        assert [wanted.threshold for wanted in page._redrawing._wish] == [threshold]
        assert page._threshold.value == threshold


def test_maps_of_tumour_and_of_classes_in_one_folder(tmp_path):
    for name in ("a", "b"):
        write_tissue(tmp_path / name / f"{name}.tif")
    maps = tmp_path / "maps"
    SlideMapper(Nearest(), class_names=NAMES, **grouped(**SETTINGS)).run(tmp_path / "a", maps)
    SlideMapper(Redness(), **grouped(**SETTINGS)).run(tmp_path / "b", maps)
    layers, found = layers_of(maps), Maps.of_folder(maps)
    assert [found.class_names_of(name) for name in ("a", "b")] == [NAMES, None]
    of_classes, of_tumour = outlines_at(layers, 0, "a", 0.5), outlines_at(layers, 0, "b", 0.5)
    assert set(of_classes.classes) == {"invasive"}
    assert of_classes.share == pytest.approx(0.125, abs=0.01)
    assert of_tumour.area_mm2 == pytest.approx(float(found.rows["b"]["tumour_area_mm2"]), abs=1e-9)
    # Which class is shown of the one says nothing of the other.
    squares = [[layers.map_square(0, name, (0, 0, 0), "viridis", channel) for channel in (1, 3)] for name in ("a", "b")]
    assert squares[0][0] != squares[0][1]
    assert squares[1][0] == squares[1][1]


def test_a_map_of_an_earlier_version_with_other_settings_is_said_to_be(open_page, tmp_path):
    """Its row does not hold its threshold, and the folder's is another's."""
    write_tissue(tmp_path / "slides/a.tif")
    maps = tmp_path / "maps"
    SlideMapper(Doubtful(), **grouped(**SETTINGS)).run(tmp_path / "slides", maps)
    table = (maps / "slides.csv").read_text()
    settings = json.loads((maps / "settings.json").read_text())
    for column, threshold, is_said in (("min_area_um2", 0.9, False), ("other", 0.5, False), ("other", 0.9, True)):
        (maps / "slides.csv").write_text(table.replace("min_area_um2", column))
        (maps / "settings.json").write_text(json.dumps({**settings, "threshold": threshold}))
        page = open_page(maps)
        page._open("a")
        text = said(page, outlines_at(page._layers, 0, "a", 0.5))
        assert (
            text.endswith("(this map was made with other settings than those in its folder: its own threshold is not known)")
            == is_said
        )
