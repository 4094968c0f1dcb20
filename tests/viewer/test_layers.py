"""What the page shows of slides, maps and masks, against the files themselves."""

import io
import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from scripts.viewer.cohort import Cohort, Maps, ViewedSlide, open_cohort
from scripts.viewer.layers import Layers, _reduced_map, _whole_map, colour_table
from scripts.viewer.map_pixels import MapPixels
from scripts.viewer.outlines import KeptMap, draft_outlines, outlines_at
from scripts.viewer.view_state import ViewState, state_of
from scripts.viewer.zoom import TILE_PX, Zoom
from shared.writers import write_ome_tiff
from tests.wsi.conftest import write_slide


@pytest.fixture
def layers(mapped):
    return Layers(open_cohort([mapped / "plain", mapped / "other"], mapped / "slides.csv"))


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_squares_of_the_deepest_zoom_are_the_slides_own_pixels(layers, mapped):
    rgb = tifffile.imread(mapped / "slides/first.tif")
    zoom = layers.zoom("first")
    assert zoom.deepest == 3
    for column, row in ((0, 0), (1, 1), (4, 3)):
        square = pixels(layers.slide_square("first", (3, column, row)))
        expected = np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
        part = rgb[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256]
        expected[: part.shape[0], : part.shape[1]] = part
        np.testing.assert_array_equal(square, expected)


def test_deeper_squares_enlarge_the_slides_pixels(layers):
    square = pixels(layers.slide_square("first", (3, 1, 1)))
    np.testing.assert_array_equal(pixels(layers.slide_square("first", (5, 5, 6)))[::4, ::4], square[128:192, 64:128])


def test_the_shallowest_square_holds_the_whole_slide(layers):
    square = pixels(layers.slide_square("first", (0, 0, 0)))
    # 1200 x 900 px at 8 to 1; tumour from (300, 300) to (540, 540).
    assert (square[900 // 8 + 1 :] > 250).all()
    red = square[:, :, 1] < 60
    rows, columns = np.nonzero(red)
    assert [columns.min(), rows.min()] == pytest.approx([300 / 8, 300 / 8], abs=2)
    assert [columns.max(), rows.max()] == pytest.approx([540 / 8, 540 / 8], abs=2)


def test_a_long_slide_without_levels_is_read_and_no_more(tmp_path):
    """At the coarsest zoom its square is 16,384 px wide, of which the slide takes 100."""
    rgb = np.full((9000, 100, 3), 255, np.uint8)
    rgb[6400:7680] = 60
    write_slide(tmp_path / "core.tif", [rgb], mpp=0.5)
    layers = Layers(Cohort({"core": ViewedSlide("core", tmp_path / "core.tif")}))
    assert layers.zoom("core").step(0) == 64
    tracemalloc.start()
    try:
        square = pixels(layers.slide_square("core", (0, 0, 0)))
        assert tracemalloc.get_traced_memory()[1] < 2e8
    finally:
        tracemalloc.stop()
    assert np.flatnonzero((square < 100).any(axis=(1, 2)))[[0, -1]].tolist() == [100, 119]
    assert (square[:, 3:] == 255).all()


def test_the_map_and_the_mask_lie_on_the_slide(layers):
    for place in ((3, 1, 1), (2, 0, 0), (0, 0, 0)):
        slide = pixels(layers.slide_square("first", place))
        tumour = slide[:, :, 1] < 60
        viridis = colour_table("viridis")[255]
        mapped = (pixels(layers.map_square(0, "first", place, "viridis")) == viridis).all(axis=2)
        true = pixels(layers.truth_square("first", place))[:, :, 3] > 0
        # Half a pixel at the border, where the zoom is coarser than the map.
        for found in (mapped, true):
            assert (found != tumour).mean() < (0.001 if place[0] == 3 else 0.02)


def test_squares_outside_are_clear_and_wrong_ones_are_refused(layers):
    assert pixels(layers.slide_square("first", (3, 7, 0)))[:, :, 3].max() == 0
    for wrong in (lambda: layers.slide_square("first", (10, 0, 0)), lambda: layers.slide_square("../first", (0, 0, 0))):
        with pytest.raises(ValueError, match=r"zoom must be|there is no slide"):
            wrong()
    with pytest.raises(ValueError, match="unknown colour map"):
        layers.map_square(0, "first", (0, 0, 0), "jet")
    with pytest.raises(ValueError, match="has no map of 'broken'"):
        layers.map_square(0, "broken", (0, 0, 0), "viridis")
    with pytest.raises(ValueError, match="broken"):
        layers.slide_square("broken", (0, 0, 0))


@pytest.mark.parametrize("step", [0.25, 1, 3, 4, 10])
def test_windows_of_a_pyramidal_map(tmp_path, step):
    rng = np.random.default_rng(0)
    # Squares of 64 px, so that reduced copies say the same in their middles.
    values = np.kron(rng.integers(0, 256, (40, 50), np.uint8), np.ones((64, 64), np.uint8))
    write_ome_tiff(tmp_path / "map.ome.tif", KeptMap(values), 4.0)
    source = MapPixels(tmp_path / "map.ome.tif")
    assert source.shape == values.shape
    corner = (100.0, 2200.0)
    window = source.read(corner, 96, step)
    at = [np.floor(start + (np.arange(96) + 0.5) * step).astype(int) for start in corner]
    inside = np.outer(at[1] < values.shape[0], at[0] < values.shape[1])
    expected = values[np.minimum(at[1], values.shape[0] - 1)][:, np.minimum(at[0], values.shape[1] - 1)] * inside
    middle = np.outer(abs(at[1] % 64 - 31.5) < 24, abs(at[0] % 64 - 31.5) < 24)
    np.testing.assert_array_equal(window[middle], expected[middle])


@pytest.mark.parametrize("shape", [(10000, 1000), (1000, 10000), (66000, 40)])
def test_the_reduced_copies_of_a_long_map_lie_where_it_does(tmp_path, shape):
    """Their short side is rounded up to whole pixels: 1000 px are 32 of 32 px, 1.024 times as many."""
    along = int(np.argmax(shape))
    values = np.zeros(shape, np.uint8)
    first, last = shape[along] // 10 * 9 // 32 * 32, shape[along] // 100 * 95 // 32 * 32
    values[(slice(first, last), slice(None)) if along == 0 else (slice(None), slice(first, last))] = 255
    write_ome_tiff(tmp_path / "map.ome.tif", KeptMap(values), 2.0)
    source = MapPixels(tmp_path / "map.ome.tif")
    for step in (1, 2, 4, 8, 16, 32):
        corner = (0, first - 8 * step) if along == 0 else (first - 8 * step, 0)
        shown = np.flatnonzero(source.read(corner, 256, step).any(axis=1 - along))
        assert shown[0] == 8, step
        assert shown[-1] + 1 == min(256, 8 + (last - first) // step), step


def test_outlines_at_the_maps_own_threshold_are_those_that_were_written(layers, mapped):
    maps = Maps.of_folder(mapped / "plain")
    found = outlines_at(layers, 0, "first", maps.outlining("first").threshold)
    assert found.area_mm2 == pytest.approx(float(maps.rows["first"]["tumour_area_mm2"]), abs=1e-9)
    written = json.loads((mapped / "plain/first.geojson").read_text())["features"]
    assert len(found.rings) == len(written) == 1
    np.testing.assert_allclose(found.rings[0][0], np.asarray(written[0]["geometry"]["coordinates"][0]), atol=0.01)


def test_outlines_at_another_threshold_hold_the_pixels_above_it(layers, mapped):
    values = tifffile.imread(mapped / "plain/first.ome.tif")
    row = Maps.of_folder(mapped / "plain").rows["first"]
    for threshold in (0.002, 0.9, 1.0):
        expected = (values >= 255 * threshold).sum() * float(row["map_mpp"]) ** 2 / 1e6
        assert outlines_at(layers, 0, "first", threshold).area_mm2 == pytest.approx(expected, abs=1e-9)


def test_drafts_of_outlines_hold_nearly_the_same(layers):
    for threshold in (0.002, 0.9, 1.0):
        draft, full = draft_outlines(layers, 0, "first", threshold), outlines_at(layers, 0, "first", threshold)
        assert len(draft.rings) == len(full.rings) == 1
        assert draft.area_mm2 == pytest.approx(full.area_mm2, rel=0.02)
        corners = [[ring.min(axis=0), ring.max(axis=0)] for ring in (draft.rings[0][0], full.rings[0][0])]
        np.testing.assert_allclose(corners[0], corners[1], atol=10)


def test_a_draft_of_a_large_map_is_of_its_tissue(tmp_path):
    values = np.zeros((3000, 4000), np.uint8)
    values[1000:1400, 2000:2600] = 100
    values[1100:1300, 2100:2500] = 200
    write_ome_tiff(tmp_path / "map.ome.tif", KeptMap(values), 4.0)
    found, corner, step = _reduced_map(tmp_path / "map.ome.tif", "", MapPixels(tmp_path / "map.ome.tif"))
    # 600 x 400 px, and a pixel of the first look on each side, in the tiles of the file that hold something.
    assert 600 / 400 <= step <= 630 / 400
    columns, rows = np.flatnonzero((found >= 150).any(axis=0)), np.flatnonzero((found >= 150).any(axis=1))
    place = [corner[0] + columns[0] * step, corner[0] + (columns[-1] + 1) * step, corner[1] + rows[0] * step]
    assert place == pytest.approx([2100, 2500, 1100], abs=2)


def test_a_long_map_is_read_in_squares_that_memory_holds():
    """Of a needle biopsy: its filled part is read whole, and no square as long as it."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 9000), np.uint8)

    class Stored:
        filled_box = (100, 3, 8900, 67)

        def read(self, xy, size_px, step):
            assert (size_px <= 2048, step) == (True, 1)
            window = np.zeros((size_px, size_px), np.uint8)
            part = pixels[xy[1] : xy[1] + size_px, xy[0] : xy[0] + size_px]
            window[: part.shape[0], : part.shape[1]] = part
            return window

    values, corner = _whole_map(Path("none"), "", Stored())
    np.testing.assert_array_equal(values, pixels[3:67, 100:8900])
    assert corner == (100, 3)


def test_a_map_that_is_rewritten_is_read_anew(mapped, tmp_path):
    shutil.copytree(mapped / "plain", tmp_path / "maps")
    layers = Layers(open_cohort([tmp_path / "maps"]))
    before, area = layers.map_square(0, "first", (0, 0, 0), "viridis"), outlines_at(layers, 0, "first", 0.5).area_mm2
    stamp = layers.cohort.methods[0].stamp("first")
    assert area > 0
    # As a run with another network leaves it: files that take the place of the former.
    values = np.zeros(layers.map(0, "first").shape, np.uint8)
    write_ome_tiff(tmp_path / "maps/first.ome.tif", KeptMap(values), 4.0)
    table = (tmp_path / "maps/slides.csv").read_text()
    (tmp_path / "new.csv").write_text(table.replace("first,ok", "first,failed"))
    assert layers.cohort.methods[0].stamp("first") != stamp
    assert layers.map_square(0, "first", (0, 0, 0), "viridis") != before
    assert outlines_at(layers, 0, "first", 0.5).rings == draft_outlines(layers, 0, "first", 0.5).rings == []
    (tmp_path / "new.csv").replace(tmp_path / "maps/slides.csv")
    assert not layers.cohort.methods[0].has_map("first")


def test_a_link_holds_the_view(layers):
    state = ViewState("first", (1, 0), 0.25, "magma", (10, 20, 500, 400))
    arguments = {name: [value.encode()] for name, value in (pair.split("=") for pair in state.query.split("&"))}
    arguments |= {name: [value[0].replace(b"%2C", b",")] for name, value in arguments.items()}
    assert state_of(arguments, layers.cohort) == state


@pytest.mark.parametrize(
    "query",
    [{"slide": "no such"}, {"methods": "9,x"}, {"threshold": "nan"}, {"threshold": "7"}, {"box": "1,2,3"}, {"colours": "<b>"}],
)
def test_what_is_wrong_in_a_link_is_left_out(layers, query):
    found = state_of({name: [value.encode()] for name, value in query.items()}, layers.cohort)
    assert found == ViewState(methods=() if "methods" in query else (0, 1))


def test_a_folder_without_maps_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"contains no maps: expected slides\.csv"):
        open_cohort([tmp_path])
    with pytest.raises(ValueError, match="there are no slides to show"):
        open_cohort([])


def test_zoom_of_a_tiny_slide():
    assert Zoom((10, 10)).deepest == 0
    assert Zoom((10, 10)).corner(0, 0, 0) == (0, 0)


def test_two_slides_of_one_name_are_said(tmp_path, caplog):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "slide.svs").write_bytes(b"")
    (tmp_path / "slides.csv").write_text("image,label\na/slide.svs,1\nb/slide.svs,0\n")
    cohort = open_cohort([], tmp_path / "slides.csv")
    assert cohort.slides["slide"].path == tmp_path / "a/slide.svs"
    assert [record.message for record in caplog.records if "two slides" in record.message] == [
        f"two slides have the name slide: {tmp_path}/a/slide.svs is shown, {tmp_path}/b/slide.svs is not"
    ]


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port):
    pytest.importorskip("bokeh", reason="needs bokeh (requirements-viewer.txt)")
    from scripts.viewer.server import open_server

    with pytest.raises(ValueError, match=f"--port must be from 0 to 65535, found {port}"):
        open_server(Cohort({}), port)
