"""The modes of joint segmentation and classification side by side on BACH, by the command of the bundle's README."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from scripts import compare
from scripts.comparison.data import ComparisonData, prepare_data
from scripts.comparison.planning.methods import find_methods, with_dataset
from scripts.comparison.planning.plan import plan
from scripts.declarations.published import published_data
from scripts.declarations.supervision import IMAGES, SLIDES
from shared.sweeps.sweep import parse_value
from shared.writers.table import read_rows

from ..data.bach_layout import write_bach
from ..docs.documented import COMMANDS, ROOT
from ..preparation.conftest import Prepare, prepare
from ..scripts.conftest import run_script

__all__ = ["prepare", "run_script"]
MODES = ("S", "S+C", "S+C*")
# The miniature's slides are too small for patches of 128 px at 7.472 um.
MPP = 0.467
(COMMAND,) = (
    command
    for command in COMMANDS
    if command.readme.startswith("bundles/joint_seg_cls") and "scripts/compare.py" in command.words and "bach" in command.words
)


@pytest.fixture
def bach(tmp_path: Path, prepare: Prepare) -> Path:
    """The manifest of patches and photos that `prepare.py` writes of the miniature: 3 lesions a slide, 2 photos a class."""
    error, _ = prepare("bach", write_bach(tmp_path / "source"), tmp_path / "bach", "--size_px", 128, "--mpp", MPP)
    assert error == ""
    return tmp_path / "bach" / "patches.csv"


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> Namespace:
    monkeypatch.setattr(sys, "argv", list(COMMAND.words[1:]))
    return compare.parsed()


def keys_of(arguments: Namespace) -> dict[str, Any]:
    assert {name for name, _, _ in arguments.set} == {"all"}
    return {key: parse_value(value) for _, key, value in arguments.set}


def test_the_modes_are_planned_as_different_trainings(bach: Path, arguments: Namespace, tmp_path: Path) -> None:
    """Patches and photos have two sizes: the overlay of the data says at which they are read."""
    data: ComparisonData = prepare_data(bach, tmp_path / "data", arguments.class_names)
    assert data.region_size_um is None
    methods = [with_dataset(found, arguments.dataset) for found in find_methods(ROOT / "bundles", arguments.methods)]

    def planned(**keys: Any) -> list[Any]:
        return [plan(found, data, tmp_path / "tissue", {**keys_of(arguments), **keys}) for found in methods]

    # With half of the masks, S+C learns from half of the 8 photos: of 3 patches and of 2 photos a class it takes 2 and 1.
    plans = planned(masked_share=0.5)
    assert [one.effort for one in plans] == [{"labels": labels, "areas": 0, "masks": 6} for labels in (0, 4, 8)]
    # As the command says, one patch a class; 0.95 of two photos are two.
    plans = planned()
    assert [one.effort for one in plans] == [{"labels": labels, "areas": 0, "masks": 3} for labels in (0, 8, 8)]
    parsers = [one.method.parser(one.settings) for one in plans]
    assert [parser.get_parsed_content("mode") for parser in parsers] == list(MODES)
    for parser in parsers:
        assert [parser.get_parsed_content(name) for name in ("image_size_px", "labelled_size_px")] == [128, 128]
        assert parser.get_parsed_content("mpp") == pytest.approx(7.472)
    # S and S+C have published numbers of their share and slides, but those are of whole slides, and these are patches.
    published = published_data(ROOT / "bundles")[arguments.dataset]
    assert [one.facts for one in plans] == [{"training_cases": ["A01", "A02", "A03"], "trains_on_regions": False}] * 3

    def published_of(unit: str) -> list[dict[str, float]]:
        return [published.of_unit(unit).of(one.method.key, one.method.plain_keys(one.settings) | one.facts) for one in plans]

    assert [list(scores) for scores in published_of(SLIDES)] == [["bach_score_of_cases"], ["bach_score_of_cases"], []]
    assert not data.is_slides
    assert published_of(IMAGES) == [{}, {}, {}]


@pytest.mark.parametrize(
    ("options", "cases"), [((), ["A01", "A02", "A03"]), (("--split_with_a08",), ["A01", "A06", "A08"])], ids=["A01-A03", "A08"]
)
def test_no_published_number_stands_beside_regions_of_whole_slides(
    arguments: Namespace, prepare: Prepare, tmp_path: Path, options: tuple[str, ...], cases: list[str]
) -> None:
    """Scores of whole slides are the paper's, its training on patches of lesions and photos is not what a comparison does."""
    sizes = ("--size_px", 128, "--mpp", MPP)
    assert prepare("bach", write_bach(tmp_path / "source"), tmp_path / "bach", *sizes, *options)[0] == ""
    slides = tmp_path / "bach" / "slides.csv"
    data = prepare_data(slides, tmp_path / "data", arguments.class_names, region_size_px=64, region_mpp=MPP)
    (found,) = find_methods(ROOT / "bundles", ["joint_seg_cls+s"])
    planned = plan(with_dataset(found, arguments.dataset), data, tmp_path / "tissue", {"image_size_px": 128, "mpp": 7.472})
    assert planned.facts == {"training_cases": cases, "trains_on_regions": True}
    config = planned.method.plain_keys(planned.settings) | planned.facts
    published = published_data(ROOT / "bundles")[arguments.dataset].of_unit(SLIDES)
    assert published.of(planned.method.key, config) == {}
    # Patches of lesions of these slides would be the paper's, if they are the first three.
    assert bool(published.of(planned.method.key, config | {"trains_on_regions": False})) == (not options)


@pytest.mark.slow
def test_a_mode_gets_its_row(bach: Path, tracked_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the three, and a short training: the same command with other keys after it."""
    small = {"mpp": MPP, "pretrained": False, "num_epochs": 1, "num_workers": 0}
    words = [*COMMAND.words[1:], "--manifest", bach, "--out", tracked_folder, "--methods", "joint_seg_cls+s_plus_c", "--seeds", 1]
    words += ["--no_baselines", *(part for name, value in small.items() for part in ("--set", "all", name, value))]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with pytest.raises(SystemExit) as stop:
        compare.main()
    assert stop.value.code == 0
    (row,) = read_rows(tracked_folder / "table.csv", "method").values()
    found = {name: row[name] for name in ("status", "labels", "masks", "overlays")}
    assert found == {"status": "ok", "labels": "8", "masks": "3", "overlays": "bach s_plus_c"}
    assert 0 < float(row["bach_score_of_cases"]) <= 1
    # Whole slides have such a number.
    assert "published_bach_score_of_cases" not in row
