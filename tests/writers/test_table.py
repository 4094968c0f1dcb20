import pytest

from shared.writers import read_rows, write_rows
from shared.writers.table import check_table


def test_rows_are_replaced_in_place_and_appended(tmp_path):
    path = tmp_path / "slides.csv"
    write_rows(path, [{"slide": "a", "status": "failed", "reason": 'no mpp, "really"\nnone'}])
    write_rows(path, [{"slide": "b", "status": "ok", "reason": None}])
    write_rows(path, [{"slide": "a", "status": "ok", "area": 0.1}])
    assert path.read_text() == "slide,status,reason,area\na,ok,,0.1\nb,ok,,\n"
    assert read_rows(path)["b"] == {"slide": "b", "status": "ok", "reason": "", "area": ""}


def test_no_file_is_no_rows(tmp_path):
    assert read_rows(tmp_path / "slides.csv") == {}


def test_refuses_a_file_of_another_kind(tmp_path):
    path = tmp_path / "slides.csv"
    path.write_text("image,label\na.png,1\n")
    said = r"slides\.csv exists and was not written by these runs: it has no column 'slide'\. Move it away"
    for use in (
        lambda: write_rows(path, [{"slide": "a"}]),
        lambda: read_rows(path),
        lambda: check_table(path, ["slide", "label"]),
    ):
        with pytest.raises(ValueError, match=said):
            use()
    check_table(path, ["image"])
    check_table(tmp_path / "none.csv", ["slide"])
