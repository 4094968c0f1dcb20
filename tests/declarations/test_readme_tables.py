"""The tables of bundles in the READMEs say what the bundles declare."""

import re
from pathlib import Path

import pytest

from scripts.declarations.published import published_data
from scripts.declarations.supervision import read_supervision

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json"))


def table(readme: str, header: str) -> list[list[str]]:
    """The cells of the table with this header, row by row."""
    behind = (ROOT / readme).read_text(encoding="utf-8").split(f"\n{header}\n")[1].splitlines()[1:]
    rows = behind[: next(index for index, line in enumerate(behind) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize(("readme", "prefix"), [("README.md", "bundles/"), ("bundles/README.md", "")])
def test_which_bundle_for_which_labels(readme, prefix):
    by_labels: dict[str, list[str]] = {}
    for bundle in BUNDLES:
        link = f"[`{bundle.name}`]({prefix}{bundle.name}/docs/README.md)"
        by_labels.setdefault(read_supervision(bundle).you_have, []).append(link)
    rows = table(readme, "| what you have | bundle |")
    assert sorted(rows) == sorted([labels, ", ".join(links)] for labels, links in by_labels.items())


def test_what_each_bundle_learns_from():
    expected = []
    for bundle in BUNDLES:
        declared = read_supervision(bundle)
        learns = (f"`{name}`" + (" of some" if name in declared.of_some else "") for name in declared.learns_from)
        chooses = ", ".join(f"`{name}`" for name in declared.chooses_by) or "-"
        by_viewer = "yes" if (bundle / "configs" / "from_viewer.json").is_file() else "no"
        expected.append([f"`{bundle.name}`", declared.unit, ", ".join(learns), chooses, by_viewer])
    header = "| bundle | rows of its manifest | learns from | chooses its epoch or threshold by | trained by a viewer's labels |"
    assert table("bundles/README.md", header) == expected


def test_overlays_of_data_sets_are_listed_with_all_bundles_that_have_them():
    cells = [row[-1] for row in table("docs/data_sets.md", "| data set | command | where, and under which terms | overlays |")]
    listed = [entry for cell in cells for entry in cell.split("; ")]
    assert listed
    for entry in listed:
        *bundles, overlay = re.findall(r"`([\w.]+)`", entry)
        assert bundles == [bundle.name for bundle in BUNDLES if (bundle / "configs" / overlay).is_file()], overlay


def test_data_sets_with_published_numbers_are_named():
    text = " ".join((ROOT / "docs/compare.md").read_text(encoding="utf-8").split())
    first, others = re.search(r"`--dataset (\w+)` \(([^)]*)\) adds the published scores", text).groups()
    assert sorted([first, *re.findall(r"\w+", others)]) == sorted(published_data(ROOT / "bundles"))
