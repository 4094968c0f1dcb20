"""`scripts/view.py` as its user meets it: a process, and a real browser where there is one."""

import io
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import tifffile
from PIL import Image

from scripts.viewer.cohort import Maps
from scripts.viewer.squares import thumbnail_address

from .conftest import HOSTILE

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 600
pytestmark = pytest.mark.slow
pytest.importorskip("bokeh", reason="needs bokeh (requirements-viewer.txt)")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """What the process writes to its standard error."""
    return tmp_path_factory.mktemp("page") / "log.txt"


@pytest.fixture(scope="module")
def address(mapped, log):
    """The address of the page, served by a process of its own."""
    command = [sys.executable, ROOT / "scripts/view.py", mapped / "plain", mapped / "other", "--manifest", mapped / "slides.csv"]
    with log.open("w") as stderr:
        process = subprocess.Popen([*command, "--no_browser"], stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    assert process.wait(DEADLINE_S) == 0


@pytest.fixture
def open_page(browser, address):
    """The page; fails the test on an error in it or a request to another machine."""
    contexts, problems, requests = [], [], []

    def show(query="", width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * DEADLINE_S)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
        page.goto(address + query)
        page.wait_for_function("() => window.Bokeh?.documents?.length && Bokeh.documents[0].roots().length")
        return page

    yield show
    for context in contexts:
        context.close()
    assert problems == []
    host = address.split("?")[0]
    assert [url for url in requests if not url.startswith((host, "data:", "blob:"))] == []


def said(page, words):
    """Wait until the line above the slide holds these words."""
    page.wait_for_function("(words) => Bokeh.documents[0].get_model_by_name('message')?.text.includes(words)", arg=words)
    return page.evaluate("Bokeh.documents[0].get_model_by_name('message').text")


def status_of(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_only_who_has_the_token_sees_anything(address):
    host, token = address.split("/?")
    square = f"{host}/slide/first/0/0/0.png"
    status, picture = status_of(f"{square}?{token}")
    assert status == 200
    assert np.asarray(Image.open(io.BytesIO(picture))).shape == (256, 256, 3)
    for kind in ("slide", "truth"):
        assert status_of(f"{host}/{kind}/{quote(HOSTILE, safe='')}/0/0/0.png?{token}")[0] == 200
    assert status_of(f"{host}{thumbnail_address(HOSTILE, '0')}&{token}")[0] == 200
    for url in (square, f"{square}?token=guess", f"{host}/", f"{host}/ws"):
        assert status_of(url)[0] in (400, 403), url
    assert status_of(f"{square}?{token}", Host="evil.example")[0] == 403
    assert status_of(address, Host="evil.example")[0] == 403
    status, reason = status_of(f"{host}/slide/..%2F..%2Fslides.csv/0/0/0.png?{token}")
    assert status == 404
    assert b"there is no slide" in reason


@pytest.mark.parametrize("query", ["", "&slide=first", "&slide=first&methods=0,1", "&slide=broken"])
def test_bokeh_has_nothing_to_warn_of(address, log, query):
    assert status_of(address + query)[0] == 200
    assert "(EMPTY_LAYOUT)" not in log.read_text()
    assert "W-10" not in log.read_text()


def test_the_table_and_the_slide(open_page, mapped):
    page = open_page()
    page.locator(".slick-row").nth(2).wait_for()
    # A hostile name is text.
    page.get_by_text(HOSTILE, exact=True).first.wait_for()
    page.get_by_text("first", exact=True).first.click()
    row = Maps.of_folder(mapped / "plain").rows["first"]
    text = said(page, "plain: 1 area, ")
    assert f"{float(row['tumour_area_mm2']):.4f} mm²" in text
    # The threshold moves, and with it outlines and areas.
    page.evaluate("Bokeh.documents[0].get_model_by_name('threshold').value = 1")
    values = tifffile.imread(mapped / "plain/first.ome.tif")
    expected = (values == 255).sum() * float(row["map_mpp"]) ** 2 / 1e6
    said(page, f"{expected:.4f} mm²")
    # The address opens the same view again.
    assert "slide=first" in page.url
    page.wait_for_function("() => location.search.includes('threshold=1')")
    again = open_page("&" + page.url.split("?")[1])
    said(again, f"{expected:.4f} mm²")


def test_level_0_is_shown_pixel_by_pixel(open_page, mapped):
    page = open_page("&slide=first&methods=0")
    said(page, "plain: 1 area, ")
    for name, value in (("shown", "active = []"), ("opacity", "value = 0")):
        page.evaluate(f"Bokeh.documents[0].get_model_by_name('{name}').{value}")
    # One pixel of the screen is one of level 0, from (300, 250) on.
    canvas = page.locator(".bk-Figure .bk-events").first.bounding_box()
    frame = page.evaluate(
        """() => {
          const find = (view) => view.model.type == "Figure" ? view : [...(view.child_views ?? [])].map(find).find((v) => v)
          const view = find(Object.values(Bokeh.index)[0] ?? Bokeh.index.roots[0])
          const box = view.frame.bbox
          view.model.x_range.setv({start: 300, end: 300 + box.width})
          view.model.y_range.setv({start: -250 - box.height, end: -250})
          return {left: box.left, top: box.top, width: box.width, height: box.height}
        }"""
    )
    clip = {"x": canvas["x"] + frame["left"], "y": canvas["y"] + frame["top"], "width": 400, "height": 300}
    rgb = tifffile.imread(mapped / "slides/first.tif").astype(int)
    # Where a figure begins on the screen is known to a pixel or two.
    shifts = [(x, y) for x in range(-2, 3) for y in range(-2, 3)]
    parts = [rgb[254 + y : 546 + y, 304 + x : 696 + x] for x, y in shifts]
    deadline, difference = time.monotonic() + DEADLINE_S, 255
    while difference > 1:
        assert time.monotonic() < deadline, difference
        page.wait_for_timeout(500)
        shot = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")).astype(int)
        difference = min(np.abs(shot[4:-4, 4:-4] - part).max() for part in parts)


def test_a_slide_that_cannot_be_read_says_so(open_page):
    page = open_page("&slide=broken")
    assert "broken cannot be shown" in said(page, "cannot be shown")


def test_dark_and_narrow(open_page):
    page = open_page("&slide=first", width=400, scheme="dark")
    said(page, "plain: 1 area, ")
    page.wait_for_function("() => getComputedStyle(document.querySelector('.bk-Tabs')).backgroundColor == 'rgb(27, 27, 31)'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
