"""The documentation as a site."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(importlib.util.find_spec("furo") is None, reason="requirements-docs.txt is not installed")
def test_the_site_builds_without_a_warning_and_its_side_bar_shows_every_page(tmp_path):
    # An unknown link, anchor, language of code or picture is a warning, and -W makes an error of it.
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        tmp_path / "cache",
        "-c",
        "docs",
        ".",
        tmp_path / "site",
    ]
    process = subprocess.run([*map(str, build)], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert process.returncode == 0, process.stderr
    front_page = (tmp_path / "site/README.html").read_text()
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("bundles/*/docs/README.md"), ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
    links = [str(page.relative_to(ROOT).with_suffix(".html")) for page in pages]
    assert [link for link in links if f'class="reference internal" href="{link}"' not in front_page] == []
    assert (tmp_path / "site/_images/slide_map.jpg").is_file()
