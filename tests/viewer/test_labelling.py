"""Label, train, look: in a real browser, and once more after the server was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.data import load_manifest
from tests.label_server.embedded import copy_bundle, embed, write_big_slide
from tests.label_server.test_training import children_of, is_running

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 900
SLIDES = {
    "to label": ((20, 16), [(256, 256, 900, 800)]),
    "tumour": ((14, 12), [(128, 128, 500, 600)]),
    "normal": ((14, 12), []),
    "also to label": ((13, 12), []),
}
pytestmark = pytest.mark.slow
pytest.importorskip("bokeh", reason="needs bokeh (requirements-viewer.txt)")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A manifest of four slides, two of which have a label, and their stored features."""
    folder = tmp_path_factory.mktemp("learning")
    (folder / "slides").mkdir()
    for name, (tiles, tumour) in SLIDES.items():
        write_big_slide(folder / "slides" / f"{name}.tif", tiles, tumour)
    embed(folder / "slides", folder / "features", folder / "tissue")
    copy_bundle(folder)
    labels = {"tumour": 1, "normal": 0}
    rows = [f"slides/{name}.tif,{labels.get(name, '')},of {name}" for name in SLIDES]
    (folder / "slides.csv").write_text("image,label,case_id\n" + "\n".join(rows) + "\n")
    return folder


class Server:
    """`scripts/view.py` as a process."""

    def __init__(self, folder):
        command = [sys.executable, ROOT / "scripts/view.py", "--manifest", folder / "slides.csv", "--no_browser"]
        command += ["--features", folder / "features", "--bundle", folder / "bundles/alpha_beta_mil"]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        said = (self.process.stdout.readline().strip() for _ in range(2))
        self.labels, self.address = Path(next(said).removeprefix("labels: ")), next(said)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)


class LabelPage:
    """The page of a slide, and what its user does there."""

    def __init__(self, context, server, slide):
        self.problems = []
        self.page = context.new_page()
        self.page.set_default_timeout(1000 * DEADLINE_S)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(f"{server.address}&slide={slide}")
        self.page.wait_for_function("() => window.Bokeh?.documents?.length && Bokeh.documents[0].roots().length")

    def set(self, name, value, of="value"):
        self.page.evaluate("([name, of, value]) => { Bokeh.documents[0].get_model_by_name(name)[of] = value }", [name, of, value])

    def get(self, name, of="text"):
        return self.page.evaluate("([name, of]) => Bokeh.documents[0].get_model_by_name(name)[of]", [name, of])

    def said(self, name, *words):
        self.page.wait_for_function(
            "([name, words]) => words.every((one) => Bokeh.documents[0].get_model_by_name(name)?.text.includes(one))",
            arg=[name, words],
        )
        return self.get(name)

    def click(self, words):
        self.page.get_by_role("button", name=words, exact=True).click()

    def stroke(self, share):
        """From one place of the first pane to another, in shares of its width and height."""
        box = self.page.locator(".bk-Figure .bk-events").first.bounding_box()
        (x, y), (to_x, to_y) = ((box["x"] + box["width"] * a, box["y"] + box["height"] * b) for a, b in share)
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(to_x, to_y, steps=8)
        self.page.mouse.up()


def rows_of(path):
    return {Path(record["image"]).stem: record for record in load_manifest(path)}


def test_labels_train_the_head_and_outlive_the_server(browser, cohort):
    server = Server(cohort)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = LabelPage(context, server, "to%20label")
        page.said("message", "not mapped")
        assert page.get("counts") == "no label yet"
        # A stroke of tumour is a label, and the rough area is said.
        page.click("Tumour")
        page.stroke(((0.5, 0.35), (0.5, 0.45)))
        page.said("counts", "label: tumour")
        assert rows_of(server.labels)["to label"]["label"] == 1
        page.set("label", "1")
        page.said("counts", "(given here)")
        page.page.wait_for_function("() => !Bokeh.documents[0].get_model_by_name('area').disabled")
        page.set("area", 30)
        page.set("area", 30, "value_throttled")
        page.said("counts", "30 % of the tissue")
        # One label more is needed: of the other slide.
        page.click("train")
        page.said("learner", "found 1 normal and 2 tumour slides")
        other = LabelPage(context, server, "also%20to%20label")
        other.said("counts", "no label yet")
        other.set("label", "0")
        other.said("counts", "label: normal (given here)")
        other.page.close()
        started = time.monotonic()
        page.click("train")
        page.said("message", "version 0001: ", "mm²")
        print(
            f"\nfrom the click to the new map in the browser: {time.monotonic() - started:.1f} s, load {os.getloadavg()[0]:.1f}"
        )
        # A second version stands beside the first, and the first comes back. The slide of the other page is mapped in between.
        page.page.wait_for_function("() => !Bokeh.documents[0].get_model_by_name('train').disabled")
        page.click("train")
        both = page.said("message", "version 0002: ", "mm²")
        assert "version 0001: " in both
        page.set("version", "0001")
        page.said("learner", "maps are made with version 0001 from now on")
        assert page.problems == other.problems == []
        children = children_of(server.process.pid)
    finally:
        server.kill()
        context.close()
    # They end with the server, however it does.
    wait_until(lambda: not any(map(is_running, children)))
    rows = rows_of(server.labels)
    assert {name: (row["label"], row["area"]) for name, row in rows.items()} == {
        "to label": (1, 0.3),
        "tumour": (1, None),
        "normal": (0, 0.0),
        "also to label": (0, 0.0),
    }
    assert rows["to label"]["case_id"] == "of to label"
    again = Server(cohort)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = LabelPage(context, again, "to%20label")
        assert "label: tumour, 30 % of the tissue (given here)" in page.said("counts", "30 %")
        page.said("message", "version 0001: ", "mm²")
        assert page.get("version", "value") == "0001"
        assert rows_of(again.labels) == rows
        # What was said is taken back: what was drawn counts, and then nothing.
        page.set("label", "")
        page.said("counts", "(from the strokes)")
        page.click("undo stroke")
        page.said("counts", "no label yet")
        assert "to label" not in rows_of(again.labels)
        assert page.problems == []
    finally:
        again.process.terminate()
        context.close()
    assert again.process.wait(DEADLINE_S) == 0


def wait_until(is_so):
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)
