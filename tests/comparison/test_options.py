"""Options that mean nothing are refused before anything is read, and the help says what the options do."""

import sys

import pytest

from scripts import compare
from scripts.comparison.command import _dataset, _published
from scripts.comparison.trainings import baselines

from .conftest import BUNDLES


@pytest.fixture
def refused(monkeypatch, capsys):
    """What a command says when it refuses its options."""

    def parse(*options, command=compare.parsed):
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, options)])
        with pytest.raises(SystemExit) as stop:
            command()
        assert stop.value.code == 2
        return capsys.readouterr().err

    return parse


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], "argument --class_names: expected two names at least, the background first, such as normal tumour; found 'a'"),
        (
            ["a", "a"],
            "argument --class_names: expected different names, of which none is empty (case does not count); found 'a', 'a'",
        ),
        (["In situ", "b", " in  situ"], "found 'In situ', 'b', ' in  situ'"),
        (["a", ""], "found 'a', ''"),
    ],
)
def test_classes_are_two_different_ones_at_least(refused, names, said):
    assert said in refused("--manifest", "a.csv", "--out", "out", "--class_names", *names)
    options = ["everything_is_tumour", "--manifest", "a.csv", "--test", "b.csv", "--mpp", 1, "--tissue", "t", "--out", "o"]
    assert said in refused(*options, "--maps", "m", "--class_names", *names, command=baselines.main)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--label_seconds", -1, "--label_seconds: expected a number from 0, found -1"),
        ("--area_seconds", -0.5, "--area_seconds: expected a number from 0, found -0.5"),
        ("--mask_seconds", "nan", "--mask_seconds: expected a number from 0, found nan"),
        ("--examples", -1, "--examples: expected a whole number from 0, found -1"),
        ("--seeds", 0, "--seeds: expected a whole number from 1, found 0"),
        ("--region_size_px", 0, "--region_size_px: expected a whole number from 1, found 0"),
        *(
            (f"--{name}", value, f"--{name}: expected micrometres per pixel above 0, found {value}")
            for name in ("mpp", "tile_mpp", "region_mpp")
            for value in (0, "nan", "inf")
        ),
    ],
)
def test_numbers_that_mean_nothing(refused, option, value, said):
    assert said in refused("--manifest", "a.csv", "--out", "out", option, value)


def test_what_is_not_given_and_what_is_least_will_do(monkeypatch):
    options = ["--manifest", "a.csv", "--out", "out", "--examples", "0", "--label_seconds", "0"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *options])
    arguments = compare.parsed()
    assert (arguments.class_names, arguments.examples, arguments.label_seconds) == (["normal", "tumour"], 0, 0)


def test_published_results_are_of_the_data_set_that_is_named(monkeypatch, capsys, tmp_path):
    """A folder's name chooses the overlay of the methods, and proves nothing about the data."""
    manifest = tmp_path / "camelyon16" / "regions.csv"
    assert _dataset(BUNDLES, manifest, None) == _dataset(BUNDLES, manifest, "camelyon16") == "camelyon16"
    assert _published(BUNDLES, None) is _published(BUNDLES, "none") is None
    assert _published(BUNDLES, "camelyon16").rows
    monkeypatch.setattr(sys, "argv", ["compare.py", "--help"])
    with pytest.raises(SystemExit):
        compare.parsed()
    said = " ".join(capsys.readouterr().out.split())
    assert "If it is named here, the published results on these data are shown too" in said
