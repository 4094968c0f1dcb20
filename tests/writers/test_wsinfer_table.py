import csv

import pytest

from shared.writers import tile_table


def box_of(tile):
    return tile[1] * 100, tile[0] * 100, 100, 100


def test_columns_are_wsinfers(tmp_path):
    with tile_table(tmp_path / "a.tiles.csv", box_of, ["normal", "in situ", "invasive"]) as table:
        table.add((2, 1), [0.25, 0.5, 0.25])
    lines = (tmp_path / "a.tiles.csv").read_text().split()
    assert lines == ["minx,miny,width,height,prob_normal,prob_in_situ,prob_invasive", "100,200,100,100,0.25,0.5,0.25"]


def test_one_probability_is_that_of_the_second_of_two_classes(tmp_path):
    with tile_table(tmp_path / "a.tiles.csv", box_of, ["normal", "tumour"]) as table:
        table.add((0, 0), [0.75])
    with (tmp_path / "a.tiles.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["prob_normal"], row["prob_tumour"]) == ("0.25", "0.75")


def test_an_error_leaves_no_table(tmp_path):
    with pytest.raises(KeyError), tile_table(tmp_path / "a.tiles.csv", box_of, ["a", "b"]):
        raise KeyError
    assert not list(tmp_path.iterdir())
