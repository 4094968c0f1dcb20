"""Label bars of pages that share a learner, without a browser."""

import pytest

pytest.importorskip("bokeh", reason="needs bokeh (requirements-viewer.txt)")

from bokeh.document import Document

from scripts.viewer.labelling.label_bar import LabelBar
from scripts.viewer.labelling.learner import Progress


class BusyLearner:
    """One thing at a time, as the learner: maps are begun, and end when the test says so; those of `fails` never are there."""

    version, former, fails = "0002", "0001", ("d",)

    def __init__(self):
        self.labels, self.progress, self.revision = self, Progress(), 0
        self.begun, self.mapped = ["training"], {("0001", "d")}
        self.progress = Progress("training", 0)

    def map(self, slide):
        if (self.version, slide) in self.mapped:
            return True
        if self.progress.percent is not None:
            return False
        self.begun.append(slide)
        self.progress = Progress("mapping", 0)
        return True

    def end(self):
        slide = self.begun[-1]
        self.mapped |= set() if slide in self.fails else {(self.version, slide)}
        self.revision, self.progress = self.revision + 1, Progress("done")

    def has_map(self, method, slide):
        return (method, slide) in self.mapped

    def method(self, version):
        return version

    def versions(self):
        return [(name, name) for name in ("0001", "0002")]

    def strokes(self, name):
        return []

    def given_label(self, name):
        return None

    label = given_label

    def stop(self):
        pass


@pytest.fixture
def learner():
    return BusyLearner()


@pytest.fixture
def open_bar(learner):
    """Opens a page with a slide, which shows its maps by building its panes again; gives its polling."""

    def open_bar(slide):
        document = Document()
        bar = LabelBar(learner, document, lambda _methods: bar.open(slide, 0.5, []))
        bar.open(slide, 0.5, [])
        return bar._poll

    return open_bar


def test_slides_that_were_opened_during_a_training_are_mapped_after_it(learner, open_bar):
    polls = [open_bar("b"), open_bar("c")]
    for _ in range(3):
        learner.end()
        for poll in polls:
            poll()
    assert learner.begun == ["training", "b", "c"]


def test_a_map_that_fails_is_not_asked_for_again_and_again(learner, open_bar):
    poll = open_bar("d")
    for _ in range(5):
        learner.end()
        poll()
    assert learner.begun == ["training", "d"]
