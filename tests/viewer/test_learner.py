"""What the page learns with, without a training."""

import pytest

from scripts.label_server.learning.versions import ModelVersions
from scripts.label_server.refusal import Refusal
from scripts.viewer.cohort import open_cohort
from scripts.viewer.labelling.learner import Learner, LearnerConfig, maps_of_original
from tests.label_server.embedded import BUNDLE, embed, write_big_slide


def test_a_page_that_ends_begins_no_training(tmp_path):
    """Not even one that somebody asked for just before."""
    (tmp_path / "slides").mkdir()
    write_big_slide(tmp_path / "slides/slide.tif", (3, 2))
    embed(tmp_path / "slides", tmp_path / "features", tmp_path / "tissue")
    manifest = tmp_path / "slides.csv"
    manifest.write_text("image,label\nslides/slide.tif,1\n")
    learner = Learner(open_cohort([], manifest), manifest, LearnerConfig(BUNDLE, tmp_path / "features", tmp_path / "work"))
    learner.close()
    with pytest.raises(Refusal, match="is ending"):
        learner._train("slide")


def test_maps_of_another_checkpoint_are_not_those_of_this_one(tmp_path):
    """The folder of labels and maps is opened with one checkpoint, then with another: the first one's maps are not shown."""
    names = {}
    for name in ("none", "a", "b"):
        if name != "none":
            (tmp_path / f"{name}.pt").write_bytes(name.encode())
        names[name] = maps_of_original(ModelVersions(tmp_path / "models", tmp_path / f"{name}.pt"))
    assert len(set(names.values())) == 3
    assert maps_of_original(ModelVersions(tmp_path / "models", tmp_path / "a.pt")) == names["a"]
