"""Checkpoints beside the original one: published, rolled back, and what a kill leaves."""

import json

import pytest

from scripts.label_server.learning.versions import ModelVersions
from scripts.label_server.refusal import Refusal


@pytest.fixture
def versions(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model.pt").write_bytes(b"original")
    return ModelVersions(tmp_path / "work" / "camel", tmp_path / "bundle" / "model.pt")


def publish(versions, content):
    run = versions.new_run()
    (run / "model.pt").write_bytes(content)
    return versions.publish(run, {"labels": {"a": [1, 0.5]}})


def test_the_original_answers_until_another_is_published(versions):
    assert (versions.current.name, versions.record()) == ("original", {})
    versions.new_run()
    assert versions.current.name == "original"
    first = publish(versions, b"first")
    assert (first.name, versions.current.checkpoint.read_bytes()) == ("0002", b"first")
    assert versions.record()["trained_from"] == "original"
    assert versions.original.read_bytes() == b"original"
    assert [row["version"] for row in versions.listed()] == ["original", "0002"]


def test_a_rollback_keeps_what_it_leaves_and_its_number_is_not_used_again(versions):
    publish(versions, b"first")
    publish(versions, b"second")
    assert versions.roll_back().name == "0001"
    assert publish(versions, b"third").name == "0003"
    assert [versions.roll_back().name for _ in range(2)] == ["0001", "original"]
    with pytest.raises(Refusal, match="there is no earlier version"):
        versions.roll_back()
    assert [row["version"] for row in versions.listed()] == ["original", "0001", "0002", "0003"]


def test_any_version_can_be_chosen_and_those_after_it_come_back(versions):
    for content in (b"first", b"second", b"third"):
        publish(versions, content)
    assert versions.choose("0001").name == versions.current.name == "0001"
    assert versions.choose("0003").checkpoint.read_bytes() == b"third"
    assert [versions.roll_back().name for _ in range(2)] == ["0001", "original"]
    assert [row["version"] for row in versions.listed()] == ["original", "0001", "0002", "0003"]
    with pytest.raises(Refusal, match="camel has no version '0007'"):
        versions.choose("0007")


def test_what_a_kill_leaves_is_cleared_and_never_answers(versions):
    publish(versions, b"first")
    run = versions.new_run()
    (run / "model.pt").write_bytes(b"half")
    # Killed between the renaming of the folder and the pointer.
    run.rename(versions.folder / "0002")
    assert versions.current.name == "0001"
    versions.new_run()
    versions.clear_unfinished()
    assert not list(versions.folder.glob("training-*"))
    assert versions.current.name == "0001"


def test_a_training_gets_no_folder_that_another_may_still_write_into(versions):
    stopped, current = versions.new_run(), versions.new_run()
    assert stopped.is_dir()
    assert stopped != current
    (current / "model.pt").write_bytes(b"second")
    assert versions.publish(current, {}).name == "0002"
    assert versions.new_run().name == "training-0003"


def test_a_version_that_was_removed_by_hand_answers_no_more(versions):
    publish(versions, b"first")
    second = publish(versions, b"second")
    second.checkpoint.unlink()
    assert versions.current.name == "0001"
    assert json.loads((versions.folder / "current.json").read_text())["history"] == ["original", "0001", "0002"]
