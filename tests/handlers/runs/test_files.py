"""Files and data sets in a real MLflow database, and what they take of the disk."""

import hashlib
import json
import shutil
from pathlib import Path
from urllib.parse import urlparse

import pytest

from shared.handlers.runs.files import LINKED_BYTES, link_file


def test_large_files_have_a_second_name_instead_of_a_copy(tracked_folder, make_tracking, runs_of):
    large, small = tracked_folder / "model.pt", tracked_folder / "history.csv"
    large.write_bytes(b"w" * LINKED_BYTES)
    small.write_text("epoch\n1\n")
    tracking = make_tracking()
    tracking.start({})
    for _ in range(2):
        tracking.log_stage("a", {}, [large, small])
    logged = Path(urlparse(runs_of()["output/a"].info.artifact_uri).path)
    assert sorted(path.name for path in logged.iterdir()) == ["history.csv", "model.pt"]
    assert (logged / "model.pt").samefile(large)
    assert not (logged / "history.csv").samefile(small)
    # Replaced, as the project replaces files, the logged one stays; logged again, it is the new one.
    (tracked_folder / "new").write_bytes(b"n" * LINKED_BYTES)
    (tracked_folder / "new").replace(large)
    assert (logged / "model.pt").read_bytes()[:1] == b"w"
    tracking.log_stage("a", {}, [large])
    assert (logged / "model.pt").samefile(large)
    tracking.finish()


def test_without_links_files_are_copied(tracked_folder, make_tracking, runs_of, monkeypatch):
    def refuse(*_):
        raise OSError("not supported")

    monkeypatch.setattr("os.link", refuse)
    large = tracked_folder / "model.pt"
    large.write_bytes(b"w" * LINKED_BYTES)
    assert not link_file(large, tracked_folder / "other.pt")
    tracking = make_tracking()
    tracking.start({})
    tracking.log_stage("a", {}, [large])
    logged = Path(urlparse(runs_of()["output/a"].info.artifact_uri).path) / "model.pt"
    assert logged.read_bytes() == large.read_bytes()
    assert not logged.samefile(large)
    tracking.finish()


@pytest.mark.parametrize("times", [1, 2])
def test_a_manifest_is_a_data_set_input(tracked_folder, make_tracking, runs_of, times):
    manifest = tracked_folder / "images.csv"
    manifest.write_text("image,label\na.png,0\nb.png,1\n")
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    for _ in range(times):
        tracking = make_tracking()
        tracking.start({}, manifests=[manifest])
        tracking.finish()
    run = runs_of()["output"]
    (found,) = run.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("images.csv", digest[:16])
    assert json.loads(found.dataset.profile) == {"num_rows": 2}
    assert json.loads(found.dataset.source) == {"uri": manifest.as_uri()}
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training"}
    assert run.data.tags["manifest_sha256"] == digest


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_code_is_named(make_tracking, runs_of, run_git):
    tracking = make_tracking()
    tracking.start({}, tags={"bundle": "camel"})
    tracking.finish()
    tags = runs_of()["output"].data.tags
    assert tags["mlflow.source.git.commit"] == run_git("rev-parse", "HEAD")
    assert tags["git.dirty"] in ("true", "false")
    assert tags["bundle"] == "camel"
    from shared import __version__

    assert tags["shared_version"] == __version__
