import numpy as np
import pytest
from PIL import Image

from shared.data import fill_areas
from shared.data.labels.areas import round_up_area
from shared.synthetic import write_slide


@pytest.fixture
def tumour(write_image, tmp_path):
    """A tumour image of 20 x 10 px whose mask has the given number of tumour pixels: its record."""

    def make(num_pixels, **columns):
        mask = np.zeros(200, np.uint8)
        mask[:num_pixels] = 255
        path = tmp_path / f"mask{num_pixels}.png"
        Image.fromarray(mask.reshape(10, 20)).save(path)
        return {"image": str(write_image("a", (20, 10))), "mask": str(path), "label": 1, "row": 5, **columns}

    return make


@pytest.mark.parametrize(
    ("num_pixels", "step", "area"),
    [(59, 0.1, 0.3), (60, 0.1, 0.3), (61, 0.1, 0.4), (61, 0.05, 0.35), (140, 0.1, 0.7), (1, 0.1, 0.1), (200, 0.1, 1.0)],
)
def test_a_masks_share_rounded_up(tumour, num_pixels, step, area):
    (record,) = fill_areas([tumour(num_pixels)], step)
    assert record["area"] == area


def test_whole_steps_stay_as_they_are():
    for step in (0.1, 0.05, 0.01):
        for number in range(1, round(1 / step) + 1):
            assert round_up_area(number * step, step) == pytest.approx(number * step, abs=1e-12)


def test_a_tumour_region_without_a_tumour_pixel_gives_one_step_and_a_warning(tumour, caplog):
    """It may be smaller than a pixel, or have the label of its slide, as a tile may."""
    region = tumour(60, x=0, y=5, width_px=20, height_px=5)
    assert [record["area"] for record in fill_areas([region, {**region, "row": 6}, tumour(0)])] == [0.1, 0.1, 0.1]
    assert "the masks of 3 rows with a label above 0 and no tumour" in caplog.text


def test_what_the_manifest_says_is_kept(tumour):
    records = [tumour(60, area=0.77), {"image": "b.png", "label": 1, "area": 0.01}]
    assert [record["area"] for record in fill_areas(records)] == [0.77, 0.01]


def test_images_without_tumour_have_area_0(tumour):
    records = [
        {**tumour(60), "label": 0},
        {"image": "b.png", "label": 0, "area": None},
        {"image": "c.png", "label": 0, "area": 0.0},
    ]
    assert [record["area"] for record in fill_areas(records)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("label", "area", "problem"), [(0, 0.4, "no tumour, but the area is 0.4"), (1, 0.0, "has area 0")])
def test_an_area_that_contradicts_the_label_is_an_error(tumour, label, area, problem):
    record = tumour(60, label=label, area=area)
    with pytest.raises(ValueError, match=rf"row 5, .*a\.png: .*{problem}"):
        fill_areas([record])
    assert fill_areas([record], needed=False) == [record]


def test_records_are_copied_in_their_order(tumour):
    records = [tumour(60), {"image": "b.png", "label": 0, "extra": 3}]
    filled = fill_areas(records)
    assert [{**record, "area": None} for record in filled] == [{**record, "area": None} for record in records]
    assert "area" not in records[0]


def test_the_share_is_that_of_the_region(tumour):
    # The mask's first 60 px are its three upper rows.
    region = {"x": 5, "y": 2, "width_px": 10, "height_px": 4}
    assert fill_areas([tumour(60, **region)], step=0.05)[0]["area"] == 0.25
    below = {"x": 5, "y": 4, "width_px": 10, "height_px": 4}
    assert fill_areas([tumour(60, **below)], step=0.05)[0]["area"] == 0.05


def test_a_slide_that_is_larger_than_what_is_sampled(tmp_path, monkeypatch):
    mask = np.zeros((96, 160), bool)
    mask[:, :72] = True
    write_slide(tmp_path / "slide.tif", np.zeros((96, 160, 3), np.uint8), mpp=0.25)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    record = {"image": str(tmp_path / "slide.tif"), "mask": str(tmp_path / "mask.png"), "label": 1}
    monkeypatch.setattr("shared.data.labels.areas._MAX_SIDE_PX", 40)
    assert fill_areas([record], step=0.05)[0]["area"] == 0.45


@pytest.mark.parametrize(
    ("offset", "areas"), [(0.2, [0.5, 1.0, 0.24, 0.0]), (-0.2, [0.1, 0.7, 0.04, 0.0]), (-1, [0.1, 0.1, 0.04, 0.0])]
)
def test_an_annotators_bias(tumour, offset, areas):
    """It takes no tumour image to area 0, which the manifest may not give either."""
    records = [tumour(60), tumour(60, area=0.9), tumour(60, area=0.04), tumour(60, label=0)]
    assert [record["area"] for record in fill_areas(records, offset=offset)] == pytest.approx(areas)


def test_an_annotators_random_error(tumour):
    """Normal, the same for an image wherever it stands in the list, and within what an area can be."""
    records = [{"image": f"{row}.png", "label": row % 2, "area": 0.5 * (row % 2), "row": row} for row in range(2, 2002)]
    areas = np.array([record["area"] for record in fill_areas(records, noise=0.05, seed=1)])
    assert not areas[::2].any()
    assert areas[1::2].mean() == pytest.approx(0.5, abs=4 * 0.05 / 1000**0.5)
    assert areas[1::2].std() == pytest.approx(0.05, rel=0.1)
    part = fill_areas(records[::-3], noise=0.1, seed=1)
    assert [record["area"] - 0.5 for record in part if record["label"]] == pytest.approx(
        [2 * (areas[record["row"] - 2] - 0.5) for record in part if record["label"]], abs=1e-12
    )
    assert [record["area"] for record in fill_areas(records[:2], noise=0.05, seed=2)] != areas[:2].tolist()
    wild = [record["area"] for record in fill_areas(records, noise=5.0) if record["label"]]
    assert {min(wild), max(wild)} == {0.1, 1.0}
    with pytest.raises(ValueError, match=r"at least 0; got -0\.1"):
        fill_areas([], noise=-0.1)


def test_a_tumour_image_with_neither_is_an_error():
    record = {"image": "folder/c.png", "label": 1, "area": None, "mask": None, "row": 8}
    with pytest.raises(ValueError, match=r"row 8, folder/c\.png: .*neither an area nor a mask.*constraint needs one.*etas"):
        fill_areas([record])
    assert fill_areas([record], needed=False) == [record]


def test_not_needed_reads_no_mask(tumour):
    record = tumour(60, mask="missing.png")
    assert fill_areas([record], needed=False) == [record]
    with pytest.raises(ValueError, match=r"row 5, .*a\.png: .*missing\.png"):
        fill_areas([record])


def test_a_mask_of_another_size_names_the_row(tumour, write_image):
    record = tumour(60, mask=str(write_image("small", (7, 7))))
    with pytest.raises(ValueError, match=r"row 5, .*a\.png: .*small\.png is 7 x 7 px"):
        fill_areas([record])


@pytest.mark.parametrize("step", [0.0, -0.1, 1.5])
def test_rejects_impossible_steps(step):
    with pytest.raises(ValueError, match=rf"in \(0, 1\]; got {step}"):
        fill_areas([], step)
