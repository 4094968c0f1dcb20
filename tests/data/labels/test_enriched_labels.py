from pathlib import Path

import pytest
import torch

from shared.data import attach_instance_labels, decode_instances, encode_instances, load_picks, write_instance_labels, write_picks


def test_codes():
    labels = torch.tensor([0, 1, 1, 0, 0, 0, 0, 0, 1])
    assert encode_instances(labels) == "011000001"
    assert torch.equal(decode_instances("011000001"), labels)
    assert encode_instances(torch.tensor([True, False])) == "10"


@pytest.fixture
def records(write_image):
    image = str(write_image("slide", (32, 32)))
    places = [{"x": None, "y": None, "width_px": None, "height_px": None}]
    places = [{"x": x, "y": 0, "width_px": 16, "height_px": 16} for x in (0, 16)]
    whole = {"image": str(write_image("tile", (16, 16))), "label": 0, "row": 4, **dict.fromkeys(places[0])}
    return [{"image": image, "label": 1, "row": row, **place} for row, place in enumerate(places, start=2)] + [whole]


def test_labels_come_back_to_their_images(tmp_path, records):
    labels = [torch.tensor(values) for values in ([0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0])]
    path = tmp_path / "labels/instance_labels.csv"
    write_instance_labels(records, labels, path)
    # Leading zeros survive, and the order of the records does not matter.
    attached = attach_instance_labels(records[::-1], path)
    assert [record["instances"] for record in attached] == ["0000", "0111", "0001"]
    assert [{k: v for k, v in record.items() if k != "instances"} for record in attached] == records[::-1]
    assert "instances" not in records[0]
    first = path.read_bytes()
    write_instance_labels(records, labels, path)
    assert path.read_bytes() == first
    assert b",3,0111" in first


def test_missing_file_or_image(tmp_path, records):
    path = tmp_path / "instance_labels.csv"
    with pytest.raises(ValueError, match=r"instance_labels\.csv does not exist: .*run_relabel"):
        attach_instance_labels(records, path)
    write_instance_labels(records[1:], [torch.zeros(4)] * 2, path)
    with pytest.raises(ValueError, match=r"no instance labels for .*slide\.png \(row 2\)"):
        attach_instance_labels(records, path)


def test_picks_are_merged_and_each_instance_comes_once(tmp_path, records):
    first, second, third = ({**record, "criterion": "max_max", "probability": 0.9} for record in records)
    write_picks([first, third], tmp_path / "a.csv")
    write_picks([{**first, "criterion": "max_min"}, second], tmp_path / "b.csv")
    picks = load_picks([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert [(Path(pick["image"]).stem, pick["x"], pick["label"]) for pick in picks] == [
        ("slide", 0, 1),
        ("tile", None, 0),
        ("slide", 16, 1),
    ]


@pytest.mark.parametrize(("num_normal", "repeats"), [(2, (1, 1)), (4, (2, 2)), (3, (1, 2)), (1, (1, 1))])
def test_picks_come_as_often_as_the_over_sampled_images(tmp_path, records, num_normal, repeats):
    """Two tumour images: their picks are repeated by the ratio of the images, whatever the number of picks that is left."""
    write_picks([{**record, "criterion": "max_max", "probability": 0.9} for record in records], tmp_path / "a.csv")
    images = [{"label": 1}] * 2 + [{"label": 0}] * num_normal
    picks = load_picks([tmp_path / "a.csv"], over_sampled_as=images)
    places = [(pick["x"], pick["label"]) for pick in picks]
    # Of one normal image the two tumour images are the more frequent: its pick comes twice.
    normal = [(None, 0)] * (2 if num_normal == 1 else 1)
    assert places == [(0, 1)] * repeats[0] + [(16, 1)] * repeats[1] + normal


def test_picks_that_are_missing_or_of_one_class(tmp_path, records):
    with pytest.raises(ValueError, match=r"a\.csv does not exist: .*run_construct"):
        load_picks([tmp_path / "a.csv"])
    write_picks(records[:2], tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"a\.csv: 2 picks, all of one class"):
        load_picks([tmp_path / "a.csv"])
