"""What the page learns with, without a training."""

from scripts.label_server.learning.versions import ModelVersions
from scripts.viewer.labelling.learner import maps_of_original


def test_maps_of_another_checkpoint_are_not_those_of_this_one(tmp_path):
    """The folder of labels and maps is opened with one checkpoint, then with another: the first one's maps are not shown."""
    names = {}
    for name in ("none", "a", "b"):
        if name != "none":
            (tmp_path / f"{name}.pt").write_bytes(name.encode())
        names[name] = maps_of_original(ModelVersions(tmp_path / "models", tmp_path / f"{name}.pt"))
    assert len(set(names.values())) == 3
    assert maps_of_original(ModelVersions(tmp_path / "models", tmp_path / "a.pt")) == names["a"]
