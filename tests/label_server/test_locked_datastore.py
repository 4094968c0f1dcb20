"""A studies folder that several servers change: none loses what another was told, and none makes the others wait."""

import fcntl
import functools
import json
from collections import Counter
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

from shared.data import tissue_cache

from .conftest import SAID, said_and_drawn, upload

CHANGES = {
    "image info": (
        lambda opened, slide, file: opened.update_image_info(slide, SAID),
        lambda opened, slide: opened.get_image_info(slide).get("weak_label") == SAID["weak_label"],
    ),
    "label": (
        lambda opened, slide, file: opened.save_label(slide, file, "final", {"by": slide}),
        lambda opened, slide: opened.get_label_info(slide, "final").get("by") == slide,
    ),
    "label info": (
        lambda opened, slide, file: opened.update_label_info(slide, "final", {"checked": slide}),
        lambda opened, slide: opened.get_label_info(slide, "final").get("checked") == slide,
    ),
    "removed label": (
        lambda opened, slide, file: opened.remove_label(slide, "final"),
        lambda opened, slide: opened.annotation_file(slide) is None and "final" not in opened.json()["objects"][slide]["labels"],
    ),
    "removed slide": (
        lambda opened, slide, file: opened.remove_image(slide),
        lambda opened, slide: slide not in opened.list_images(),
    ),
}


@pytest.mark.parametrize("second", CHANGES)
@pytest.mark.parametrize("first", CHANGES)
def test_of_two_servers_of_one_folder_neither_loses_what_the_other_was_told(store, tmp_path, first, second):
    file = upload(tmp_path, "drawn.xml")
    for slide in "bc":
        store().save_label(slide, file, "final", {})
    one, other = store(), store()
    CHANGES[first][0](one, "b", file)
    CHANGES[second][0](other, "c", file)
    for opened in (other, store()):
        assert CHANGES[first][1](opened, "b")
        assert CHANGES[second][1](opened, "c")


def test_two_servers_that_are_told_at_the_same_time_lose_nothing(store, tmp_path):
    file = upload(tmp_path, "new.tif", "new")

    def add(opened, name):
        for index in range(20):
            opened.add_image(f"{name}{index}", file, SAID)

    threads = [Thread(target=add, args=(store(), name)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store()
    assert sum(found.get_image_info(name).get("weak_label") == SAID["weak_label"] for name in found.list_images()) == 40


def test_a_damaged_file_is_refused_and_nothing_is_written_over_it(store, tmp_path):
    opened, file = store(), tmp_path / "studies" / "datastore_v2.json"
    file.write_text(file.read_text()[:-9])
    before = file.read_text()
    with pytest.raises(ValueError, match=r"datastore_v2\.json is damaged .*nothing was changed: repair it, or move it away"):
        opened.update_image_info("b", SAID)
    assert file.read_text() == before
    assert "weak_label" not in opened.get_image_info("b")


@pytest.fixture
def calls(monai_label, monkeypatch):
    """How often the file of the datastore was parsed and written."""
    from scripts.label_server.studies import locked_datastore

    counts = Counter()
    parse, write = locked_datastore.LocalDatastoreModel.model_validate_json, locked_datastore.atomic_path

    def counted(name, call, *arguments):
        counts[name] += 1
        return call(*arguments)

    monkeypatch.setattr(locked_datastore.LocalDatastoreModel, "model_validate_json", partial(counted, "parsed", parse))
    monkeypatch.setattr(locked_datastore, "atomic_path", partial(counted, "written", write))
    return counts


def test_what_no_other_server_has_changed_is_not_parsed_again_and_is_written_once(store, tmp_path, calls):
    file, opened = upload(tmp_path, "drawn.xml"), store()
    config = tmp_path / "studies" / "datastore_v2.json"
    requests = (
        lambda: opened.update_image_info("b", SAID),
        lambda: opened.save_label("b", file, "final", {}),
        lambda: opened.save_label("b", upload(tmp_path, "drawn.geojson"), "final", {}),
        lambda: opened.update_label_info("b", "final", {"checked": 1}),
        lambda: opened.remove_label("b", "final"),
        lambda: opened.add_image("new", upload(tmp_path, "new.tif", "new"), {}),
        lambda: opened.remove_image("new"),
    )
    for request in requests:
        calls.clear()
        request()
        assert calls == {"written": 1}
        assert json.loads(config.read_text()) == opened.json()
    calls.clear()
    opened.refresh()
    assert calls == {}
    # What another has written is parsed once.
    store().update_image_info("c", SAID)
    calls.clear()
    opened.update_image_info("b", {"weak_label": None})
    opened.refresh()
    assert calls == {"parsed": 1, "written": 1}


def test_a_change_that_fails_leaves_what_is_known_as_it_is(store, tmp_path, monkeypatch):
    opened = store()
    opened.update_image_info("c", {"note": "first"})

    def full(path):
        raise OSError("no space is left")

    with monkeypatch.context() as patch:
        patch.setattr("scripts.label_server.studies.locked_datastore.atomic_path", full)
        for change in (
            lambda: opened.update_image_info("c", SAID | {"note": "second"}),
            lambda: opened.save_label("c", upload(tmp_path, "drawn.xml"), "final", {}),
        ):
            with pytest.raises(OSError, match="no space is left"):
                change()
            assert opened.get_image_info("c")["note"] == "first"
            assert opened.annotation_file("c") is None
    opened.update_image_info("b", SAID)
    assert store().get_image_info("c").get("weak_label") is None


@pytest.fixture
def reads(tmp_path, monkeypatch):
    """For each slide whose content was read, whether the lock of the studies folder was held."""
    found, read = [], tissue_cache.content_key.__wrapped__

    @functools.cache
    def content_key(path, *version):
        with Path(tmp_path, "studies", ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append((Path(path).name, False))
            except BlockingIOError:
                found.append((Path(path).name, True))
        return read(path, *version)

    monkeypatch.setattr(tissue_cache, "content_key", content_key)
    return found


def test_slides_are_read_before_the_lock_is_held(store, tmp_path, reads):
    """Of many labelled slides on a slow disk it takes minutes, in which others can store labels."""
    opened, folder = store(), tmp_path / "studies" / "sub"
    opened.update_image_info("a.tif", SAID)
    opened.save_label("b", upload(tmp_path, "drawn.xml"), "final", {})
    opened.update_image_info("c", SAID)
    assert reads == [("a.tif", False), ("b.tif", False), ("c.tif", False)]

    def read_by(call):
        reads.clear()
        tissue_cache.content_key.cache_clear()
        call()
        return sorted(reads)

    assert read_by(store) == [("a.tif", False), ("b.tif", False), ("c.tif", False)]
    folder.rename(tmp_path / "elsewhere")
    assert read_by(opened.refresh) == [("a.tif", False), ("b.tif", False)]
    (tmp_path / "elsewhere").rename(folder)
    assert read_by(opened.refresh) == [("a.tif", False), ("b.tif", False), ("c.tif", False)]
    assert said_and_drawn(opened) == (SAID["weak_label"], None)
