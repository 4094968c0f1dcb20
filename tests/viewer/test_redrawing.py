"""Outlines that are computed while the page goes on, without a browser."""

import pytest

pytest.importorskip("bokeh", reason="needs bokeh (requirements-viewer.txt)")

from bokeh.document import Document

from scripts.viewer import redrawing
from scripts.viewer.outlines import Outlines
from scripts.viewer.redrawing import Redrawing, Wanted


@pytest.fixture
def submitted(monkeypatch):
    """What would be computed beside the page: wish by wish."""
    submitted = []

    class Recorder:
        def submit(self, compute, number, wish, is_draft):
            submitted.append((number, wish, is_draft))

    monkeypatch.setattr(redrawing, "_executor", Recorder())
    return submitted


def test_a_draft_of_the_slide_before_is_not_drawn_on_the_next(submitted):
    drawn = []
    page = Redrawing(None, Document(), drawn.append)
    page.want([Wanted(0, "a", 0.5)], is_moving=True)
    page.want([Wanted(0, "b", 0.5)], is_moving=False)
    page.want([Wanted(0, "b", 0.4)], is_moving=True)
    number, wish, is_draft = submitted[0]
    assert is_draft
    page._deliver(number, wish, [redrawing.Drawn(Outlines(), is_draft=True)], is_draft)
    assert drawn == []
    # The draft of what is wanted now follows, and is drawn, though the threshold has moved on.
    number, wish, is_draft = submitted[-1]
    assert (wish[0].name, is_draft) == ("b", True)
    page.want([Wanted(0, "b", 0.3)], is_moving=True)
    page._deliver(number, wish, [redrawing.Drawn(Outlines(), is_draft=True)], is_draft)
    assert len(drawn) == 1
