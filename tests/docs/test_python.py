"""Every block of Python in docs/python.md is run, in order, in one process in its own folder."""

from pathlib import Path

import pytest
from PIL import Image

from shared.synthetic import DemoPlan, SlidePlan, write_demo

from .documented import ROOT, blocks

PAGE = ROOT / "docs" / "python.md"


@pytest.fixture
def folder(tmp_path) -> Path:
    """What a user has: the bundles, some images and a slide, and the package installed."""
    plan = DemoPlan(images={"train": 8, "val": 4, "test": 4}, size_px=320, slides=(SlidePlan("test", 0.3, (700, 600)),))
    data = write_demo(tmp_path / "user" / "my", plan)
    next((data / "slides").iterdir()).rename(data / "slide.tif")
    (data / "slides.csv").write_text("image,split\nslide.tif,test\n")
    Image.open(next((data / "images").iterdir())).save(data / "image.png")
    (tmp_path / "user" / "bundles").symlink_to(ROOT / "bundles")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "weakhisto").symlink_to(ROOT / "shared" / "python_api")
    return tmp_path / "user"


def test_every_block_of_the_page_runs(folder, run_python):
    text = PAGE.read_text(encoding="utf-8")
    code = ["\n".join(lines) for language, _, lines in blocks(text) if language == "python"]
    assert len(code) >= 7
    (folder.parent / "page.py").write_text("\n\n".join(code))
    done = run_python(folder.parent / "page.py", cwd=folder, PYTHONPATH=str(folder.parent / "site"))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["bundles", "maps", "my", "runs"]
    assert (folder / "maps" / "slide.ome.tif").is_file()
    assert (folder / "maps" / "all" / "slides.csv").is_file()
    assert (folder / "runs" / "mine" / "model.pt").is_file()
    printed = done.stdout.splitlines()
    assert any("iou" in line for line in printed)
