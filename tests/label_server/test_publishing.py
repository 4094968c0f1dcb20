"""A training that is stopped, or whose server is told to end, while its result is being checked does not become a version."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.label_server.learning.served_model import BundleSource
from scripts.label_server.learning.training import Trainings
from scripts.label_server.learning.versions import ORIGINAL, ModelVersions
from scripts.label_server.refusal import Refusal

DEADLINE_S = 600


class Ended:
    """In the place of the process that trains: it leaves a checkpoint."""

    def run(self, config_file, meta_file, log, started):
        log.write_text("done\n")
        log.with_name("model.pt").write_bytes(b"weights")
        return 0


@pytest.fixture
def served(tmp_path):
    """A bundle that is trained from labels, without its network."""
    original = tmp_path / "original.pt"
    original.touch()
    return SimpleNamespace(
        name="model",
        source=BundleSource(Path(__file__).parents[2] / "bundles/alpha_beta_mil", original),
        features=None,
        versions=ModelVersions(tmp_path / "versions", original),
        answers=[],
    )


def trained(served, while_it_is_checked):
    """The task of a training that has ended; something happens while its network is loaded."""
    trainings = Trainings(lambda *_: {}, warm=Ended())
    served.load = lambda version: while_it_is_checked(trainings)
    served.answer_with = lambda loaded, version: served.answers.append(version.name)
    task = trainings.start(served, {})
    deadline = time.monotonic() + DEADLINE_S
    while task.end_ts is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return task


def test_what_nobody_stops_is_published(served):
    task = trained(served, lambda _: None)
    assert (task.status, task.reason) == ("DONE", None)
    assert served.answers == [served.versions.current.name] == ["0001"]


def test_nothing_is_begun_by_a_server_that_ends(served):
    trainings = Trainings(lambda *_: {}, warm=Ended())
    trainings.close()
    with pytest.raises(Refusal, match="is ending"):
        trainings.start(served, {})
    assert not trainings.tasks
    assert not served.versions.folder.exists()


@pytest.mark.parametrize("ending", [Trainings.stop, Trainings.close])
def test_what_is_stopped_before_it_is_published_is_not(served, ending):
    task = trained(served, ending)
    assert (task.status, task.reason, task.version) == ("STOPPED", None, None)
    assert served.answers == []
    assert served.versions.current.name == ORIGINAL
