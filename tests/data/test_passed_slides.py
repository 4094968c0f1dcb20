"""Slides that have passed their check are opened again when something has changed, and only then."""

import os
from pathlib import Path

import pytest

from shared.data import check_slides
from shared.data.bag_dataset import SlideBagDataset
from shared.data.passed_slides import PassedSlides
from shared.wsi import slide_files


@pytest.fixture
def checked(monkeypatch):
    """Indices of the slides that are checked from here on."""
    seen = []
    check = SlideBagDataset.check
    monkeypatch.setattr(SlideBagDataset, "check", lambda bags, index: seen.append(index) or check(bags, index))
    return seen


def test_a_second_check_opens_nothing(make_bags, bag_records, checked):
    check_slides([make_bags(bag_records, with_shares=True)])
    assert sorted(checked) == list(range(len(bag_records)))
    checked.clear()
    check_slides([make_bags(bag_records, with_shares=True)])
    assert checked == []
    # Other settings, another row.
    check_slides([make_bags(bag_records)])
    assert sorted(checked) == list(range(len(bag_records)))
    checked.clear()
    check_slides([make_bags([bag_records[0] | {"label": 1 - bag_records[0]["label"]}, *bag_records[1:]])])
    assert checked == [0]


@pytest.mark.parametrize("what", ["slide", "tissue", "version"])
def test_what_has_changed_is_checked_again(make_bags, bag_records, checked, what, monkeypatch):
    bags = make_bags(bag_records)
    check_slides([bags])
    checked.clear()
    files = {"slide": [bag_records[1]["image"]], "tissue": list(bags.tissue.folder.glob("*.png"))}
    for file in files.get(what, []):
        os.utime(file, ns=(1, 1))
    if what == "version":
        monkeypatch.setattr(slide_files, "SLIDES_VERSION", slide_files.SLIDES_VERSION + 1)
    check_slides([make_bags(bag_records)])
    assert sorted(checked) == ([1] if what == "slide" else list(range(len(bag_records))))


def test_the_folder_of_a_mirax_slide_is_part_of_it(tmp_path):
    record = {"image": str(tmp_path / "a.mrxs")}
    (tmp_path / "a.mrxs").write_bytes(b"preview")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/Slidedat.ini").touch()
    PassedSlides(tmp_path, []).write([PassedSlides(tmp_path, []).entry(record, "content", tmp_path / "a.png")])
    assert PassedSlides(tmp_path, []).content_of(record) == "content"
    (tmp_path / "a/Slidedat.ini").unlink()
    assert PassedSlides(tmp_path, []).content_of(record) is None


def test_one_slide_in_two_splits_is_found_among_those_that_passed(make_bags, bag_records, tmp_path):
    first = [record | {"split": "train"} for record in bag_records]
    check_slides([make_bags(first)])
    copy = tmp_path / "copy.tif"
    copy.write_bytes(Path(first[0]["image"]).read_bytes())
    both = [make_bags(first), make_bags([first[0] | {"image": str(copy), "split": "test"}])]
    with pytest.raises(ValueError, match="in the splits"):
        check_slides(both)
    (make_bags(first).tissue.folder / "checked.json").write_text("{")
    check_slides([make_bags(first)])


def test_a_folder_that_cannot_be_written_to_ends_no_training(tmp_path, caplog):
    (tmp_path / "file").touch()
    PassedSlides(tmp_path / "file" / "tissue", []).write([{"key": "a", "content": "b", "tissue": "c", "state": []}])
    assert "the next run checks the slides again" in caplog.text
