"""What viewers' bodies stand for."""

import pytest

from scripts.label_server.endpoints.wsi_request import DEFAULT_MIN_POLY_AREA, WsiRequest, parse_wsi_request
from scripts.label_server.refusal import Refusal


@pytest.mark.parametrize(
    "body", [{}, {"size": [0, 0]}, {"location": [-1, -1], "size": [-1, -1]}, {"location": [0, 0]}, {"client_id": None}]
)
def test_the_whole_slide(body):
    assert parse_wsi_request(body) == WsiRequest(None, DEFAULT_MIN_POLY_AREA, None)


def test_a_region_and_what_goes_with_it():
    body = {"level": 0, "location": [900.4, 500], "size": [3000, 1800], "min_poly_area": 80.5, "params": {"mpp": 0.25}}
    assert parse_wsi_request(body) == WsiRequest((900, 500, 3000, 1800), 80.5, 0.25)


def test_tiles_stand_for_the_rectangle_around_them():
    tiles = [{"location": [100, 300], "size": [50, 60]}, {"location": [10, 400], "size": [20, 30]}]
    assert parse_wsi_request({"location": [5, 5], "size": [9, 9], "params": {"wsi_tiles": tiles}}).box == (10, 300, 140, 130)


@pytest.mark.parametrize("tiles", [[5], [{"location": [1, 1]}], "tiles"])
def test_tiles_of_another_form(tiles):
    with pytest.raises(Refusal, match=r"wsi_tiles|an empty region"):
        parse_wsi_request({"params": {"wsi_tiles": tiles}})
