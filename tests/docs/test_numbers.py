"""One number in one place: what pages and READMEs quote with an interval stands so in the results, or in the card of a head."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# As in "45.5 (41.9 to 49.2)", "4.7 (-10.1 to 11.6)", "IoU 64.8 % (54.1 to 74.2; ...", "CAMEL by 9.1 (0.4 to 17.5)".
_WITH_INTERVAL = re.compile(r"(-?\d+\.\d)(?: points| %)?[,]? \((-?\d+\.\d) to (-?\d+\.\d)")
# As in "(0.0, -0.6 to 0.9)".
_IN_BRACKETS = re.compile(r"\((-?\d+\.\d), (-?\d+\.\d) to (-?\d+\.\d)\)")
MEASURED = [*sorted((ROOT / "docs").glob("results*.md")), *sorted((ROOT / "bundles").glob("*/models/*/README.md"))]
QUOTING = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "bundles").rglob("docs/README.md")))
    if path not in MEASURED
] + [ROOT / "bundles" / "README.md"]


def numbers(path):
    text = " ".join(path.read_text().replace("**", "").split())
    return {match.groups() for pattern in (_WITH_INTERVAL, _IN_BRACKETS) for match in pattern.finditer(text)}


@pytest.fixture(scope="module")
def measured():
    return {number for path in MEASURED for number in numbers(path)}


@pytest.mark.parametrize("path", QUOTING, ids=lambda path: str(path.relative_to(ROOT)))
def test_quoted_numbers_are_those_of_the_results(path, measured):
    unknown = numbers(path) - measured
    assert not unknown, f"{path.relative_to(ROOT)} quotes what no results page has: {sorted(unknown)}"


def test_some_numbers_are_quoted(measured):
    assert len(measured) > 100
    assert sum(bool(numbers(path)) for path in QUOTING) >= 3


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("results*.md")), ids=lambda path: path.name)
def test_a_baseline_has_one_interval_on_a_page(path):
    """Rows of "everything is tumour" that score the same are of the same images, whichever methods they stand beside."""
    found = {}
    for line in path.read_text().splitlines():
        title = line.split("|")[1].strip() if line.startswith("|") else ""
        score = _WITH_INTERVAL.search(line)
        if score and (title == "Everything is tumour" or title.startswith("Ceiling")):
            found.setdefault((title, score.group(1)), set()).add(score.groups())
    assert all(len(intervals) == 1 for intervals in found.values()), found
