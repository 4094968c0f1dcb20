"""One slide at a time into a folder of many."""

import pytest

from shared.inference import InferenceFailures, map_one
from shared.inference.cohort.finished import file_problem
from shared.inference.cohort.row_store import RowStore
from shared.writers import read_rows


def test_rows_of_other_slides_are_not_read(tmp_path, pictures, mapper, monkeypatch):
    """Of thousands of slides that are mapped one by one, each would read all before it."""
    mapper.run(pictures, tmp_path / "out")
    read, original = [], RowStore.read

    def reading(store, name):
        read.append(name)
        return original(store, name)

    monkeypatch.setattr(RowStore, "read", reading)
    (tmp_path / "out/03.png").unlink()
    for _ in range(2):
        assert map_one(mapper, pictures / "03.png", tmp_path / "out")["status"] in ("ok", "no tissue")
    assert set(read) == {"03"}


def test_a_row_that_the_table_lacks_is_put_there(tmp_path, pictures, mapper):
    """Whoever made it was killed before it could."""
    mapper.run(pictures, tmp_path / "out")
    table = tmp_path / "out/slides.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if not line.startswith("03,")))
    row = map_one(mapper, pictures / "03.png", tmp_path / "out")
    assert read_rows(table)["03"]["fingerprint"] == row["fingerprint"]
    assert len(read_rows(table)) == 12


@pytest.mark.parametrize(
    ("reason", "problem"),
    [("ValueError: no mpp", "no mpp"), ("ValueErrors: no mpp", None), ("AnswersNotFinite: NaN", None), (None, None)],
)
def test_only_a_value_error_is_the_fault_of_the_file(reason, problem):
    assert file_problem({"reason": reason}) == problem


def test_what_else_fails_is_no_value_error(tmp_path, pictures, mapper, monkeypatch):
    monkeypatch.setattr(mapper, "compute_image", lambda *_: 1 / 0)
    with pytest.raises(InferenceFailures, match="ZeroDivisionError"):
        map_one(mapper, pictures / "03.png", tmp_path / "out")
