"""What the page learns with, without a training."""

import threading

import pytest

from scripts.label_server.learning.versions import ModelVersions
from scripts.label_server.refusal import Refusal
from scripts.viewer.cohort import open_cohort
from scripts.viewer.labelling.learner import Learner, LearnerConfig, maps_of_original
from tests.label_server.embedded import copy_bundle, embed, write_big_slide


@pytest.fixture
def learner(tmp_path):
    (tmp_path / "slides").mkdir()
    write_big_slide(tmp_path / "slides/slide.tif", (3, 2))
    embed(tmp_path / "slides", tmp_path / "features", tmp_path / "tissue")
    manifest = tmp_path / "slides.csv"
    manifest.write_text("image,label\nslides/slide.tif,1\n")
    config = LearnerConfig(copy_bundle(tmp_path), tmp_path / "features", tmp_path / "work")
    learner = Learner(open_cohort([], manifest), manifest, config)
    yield learner
    learner.close()


def test_a_page_that_ends_begins_no_training(learner):
    """Not even one that somebody asked for just before."""
    learner.close()
    with pytest.raises(Refusal, match="is ending"):
        learner._train("slide")


def test_what_a_user_asks_for_while_a_slide_is_mapped_comes_next(learner, monkeypatch):
    """One thing, once; maps that pages ask for by themselves are asked for again."""
    may_end, has_chosen, done = threading.Event(), threading.Event(), []

    def choose(version, slide):
        done.append(version)
        has_chosen.set()
        return "chosen"

    monkeypatch.setattr(learner, "_choose", choose)
    assert learner._begin("mapping", lambda: f"mapped {may_end.wait(600)}")
    assert not learner._begin("mapping", lambda: done.append("another map"))
    learner.choose("0001", "slide")
    learner.choose("0002", "slide")
    learner.train("slide")
    assert learner.progress.percent == 0
    may_end.set()
    assert has_chosen.wait(600)
    learner._worker.shutdown()
    assert done == ["0001"]
    assert (learner.progress.text, learner.progress.percent, learner.revision) == ("chosen", None, 2)


def test_a_training_that_waits_is_stopped_before_it_begins(learner, monkeypatch):
    may_end, trained = threading.Event(), []
    monkeypatch.setattr(learner, "_train", trained.append)
    assert learner._begin("mapping", lambda: f"mapped {may_end.wait(600)}")
    learner.train("slide")
    learner.stop()
    assert (learner.progress.text, learner.progress.percent) == ("the training was stopped; nothing has changed", None)
    may_end.set()
    learner._worker.shutdown()
    assert not trained


def test_maps_of_another_checkpoint_are_not_those_of_this_one(tmp_path):
    """The folder of labels and maps is opened with one checkpoint, then with another: the first one's maps are not shown."""
    names = {}
    for name in ("none", "a", "b"):
        if name != "none":
            (tmp_path / f"{name}.pt").write_bytes(name.encode())
        names[name] = maps_of_original(ModelVersions(tmp_path / "models", tmp_path / f"{name}.pt"))
    assert len(set(names.values())) == 3
    assert maps_of_original(ModelVersions(tmp_path / "models", tmp_path / "a.pt")) == names["a"]
