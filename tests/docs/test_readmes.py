"""Each bundle's README: the model zoo's order, figures that are there, links that lead somewhere."""

import re
from pathlib import Path

import pytest

from .documented import READMES, ROOT

SECTIONS = [
    "Data",
    "Training configuration",
    "Input/Output",
    "Performance",
    "Commands",
    "Deviations and interpretations",
    "Limits and intended use",
    "References",
    "Licence",
]
BUNDLES = sorted(ROOT.glob("bundles/*/docs/README.md"))
FIRST_SCREEN = 25
PICTURE_BYTES = 300_000


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchor(heading: str) -> str:
    """GitHub's: lower case, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=identify)
def test_a_page_can_be_read_at_one_go(page):
    assert len(page.read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("readme", BUNDLES, ids=identify)
def test_sections_stand_in_the_zoos_order(readme: Path) -> None:
    assert re.findall(r"^## (.+)$", readme.read_text(encoding="utf-8"), flags=re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("readme", BUNDLES, ids=identify)
def test_the_first_screen_has_the_command(readme: Path) -> None:
    bundle = readme.parents[1].name
    first = readme.read_text(encoding="utf-8").splitlines()[:FIRST_SCREEN]
    assert any(f"bundles/{bundle}/configs/train.json" in line for line in first)


@pytest.mark.parametrize("readme", BUNDLES, ids=identify)
def test_performance_has_a_plot(readme: Path) -> None:
    section = readme.read_text(encoding="utf-8").split("\n## Performance\n")[1].split("\n## ")[0]
    assert re.search(r"^!\[.+\]\(.+\)$", section, flags=re.MULTILINE)


@pytest.mark.parametrize("readme", READMES, ids=identify)
def test_links_and_pictures_lead_somewhere(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", readme.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, place = target.partition("#")
        path = readme.parent / name if name else readme
        assert path.exists(), target
        if place:
            assert place in map(anchor, headings(path)), target
        if path.suffix in (".jpg", ".png"):
            assert path.stat().st_size < PICTURE_BYTES, target
