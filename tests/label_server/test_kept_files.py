"""The studies folder keeps what is in it: no upload takes the place of a slide, no label goes with a file that comes back."""

import json
import shutil
import unicodedata

import pytest

from scripts.label_server.refusal import Refusal

from .conftest import SAID, said_and_drawn, upload


def test_an_upload_takes_the_place_of_no_slide_whatever_its_id(store, tmp_path):
    opened = store()
    assert {"a.tif", "a.svs"} <= set(opened.list_images())
    with pytest.raises(Refusal, match="a slide 'a' already exists"):
        opened.add_image("a", upload(tmp_path, "new.tif", "another"), {})
    assert (tmp_path / "studies" / "a.tif").read_text() == "a.tif"


def test_a_slide_is_known_by_its_name_however_its_accents_are_written(store, tmp_path):
    """As QuPath on a Mac sends it. A folder may hold both; then each is called by its own name."""
    nfd, nfc = (unicodedata.normalize(form, "Präparat") for form in ("NFD", "NFC"))
    (tmp_path / "studies" / f"{nfc}.tif").write_bytes(b"one")
    opened = store()
    assert opened.own_id(nfd) == opened.own_id(nfc) == nfc
    assert (opened.own_id("a.tif"), opened.own_id("größer")) == ("a.tif", "größer")
    (tmp_path / "studies" / f"{nfd}.tif").write_bytes(b"two")
    assert [opened.own_id(name) for opened in (store(),) for name in (nfd, nfc)] == [nfd, nfc]


def test_a_removed_label_does_not_give_way_to_the_one_before_it(store, tmp_path):
    opened = store()
    opened.save_label("b", upload(tmp_path, "drawn.geojson"), "final", {})
    opened.save_label("b", upload(tmp_path, "drawn.xml"), "final", {})
    assert opened.annotation_file("b").name == "b.xml"
    opened.remove_label("b", "final")
    assert store().annotation_file("b") is None


def test_a_label_is_replaced_in_one_step(store, tmp_path, monkeypatch):
    opened = store()
    opened.save_label("b", upload(tmp_path, "first.xml", "first"), "final", {})

    def half(source, target):
        target.write_text("sec")
        raise OSError("killed here")

    monkeypatch.setattr("scripts.label_server.studies.datastore.shutil.copy", half)
    with pytest.raises(OSError, match="killed here"):
        opened.save_label("b", upload(tmp_path, "second.xml", "second"), "final", {})
    assert store().annotation_file("b").read_text() == "first"


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize(("slide", "moved", "back"), [("b", "b.tif", "b.tif"), ("c", "sub", "other")])
def test_what_was_said_of_a_slide_counts_again_when_it_is_back(store, tmp_path, slide, moved, back, is_running):
    opened = store()
    opened.update_image_info(slide, SAID)
    (tmp_path / "studies" / moved).rename(tmp_path / "elsewhere")
    opened.refresh() if is_running else store()
    (tmp_path / "elsewhere").rename(tmp_path / "studies" / back)
    opened.refresh()
    assert opened.get_image_info(slide)["weak_label"] == SAID["weak_label"]
    assert store().get_image_info(slide)["weak_label"] == SAID["weak_label"]


def test_what_was_said_last_counts(store, tmp_path):
    file, elsewhere = tmp_path / "studies" / "b.tif", tmp_path / "b.tif"
    for label in (SAID["weak_label"], {"tumor": 0}, None):
        opened = store()
        opened.update_image_info("b", {"weak_label": label})
        file.rename(elsewhere)
        opened.refresh()
        elsewhere.rename(file)
        assert store().get_image_info("b")["weak_label"] == label


def test_nothing_is_known_of_another_slide_of_the_same_id_nor_of_one_that_was_removed(store, tmp_path):
    opened = store()
    opened.update_image_info("b", SAID)
    (tmp_path / "studies" / "b.tif").unlink()
    opened.refresh()
    (tmp_path / "studies" / "b.svs").write_bytes(b"")
    assert "weak_label" not in store().get_image_info("b")
    opened = store()
    opened.update_image_info("b", SAID)
    opened.remove_image("b")
    (tmp_path / "studies" / "b.svs").write_bytes(b"")
    assert "weak_label" not in store().get_image_info("b")


def test_of_a_slide_that_is_a_link_the_link_is_removed(store, tmp_path):
    (tmp_path / "archive.tif").write_bytes(b"")
    (tmp_path / "studies" / "linked.tif").symlink_to(tmp_path / "archive.tif")
    store().remove_image("linked")
    assert (tmp_path / "archive.tif").is_file()
    assert not (tmp_path / "studies" / "linked.tif").is_symlink()


def replace(tmp_path, refreshed, folder="sub"):
    """Put another slide of the same name in the place of the first, or into another folder; the first is set aside."""
    (tmp_path / "studies" / "sub" / "c.tif").rename(tmp_path / "first.tif")
    refreshed()
    (tmp_path / "studies" / folder).mkdir(exist_ok=True)
    (tmp_path / "studies" / folder / "c.tif").write_bytes(b"another patient's")
    return refreshed()


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("folder", ["sub", "case2"])
@pytest.mark.parametrize("is_said", [True, False])
@pytest.mark.parametrize("is_drawn", [True, False])
def test_a_label_does_not_pass_to_another_slide_of_the_same_name(store, tmp_path, caplog, is_running, folder, is_said, is_drawn):
    opened = store()

    def refreshed():
        opened.refresh()
        return opened if is_running else store()

    if is_said:
        opened.update_image_info("c", SAID)
    if is_drawn:
        opened.save_label("c", upload(tmp_path, "drawn.xml", "first"), "final", {})
    found = replace(tmp_path, refreshed, folder)
    assert said_and_drawn(found) == (None, None)
    assert ("not those of this file" in caplog.text) == (is_said or is_drawn)
    # What is known of the other one takes the place of nothing.
    found.update_image_info("c", {"weak_label": {"tumor": 0}})
    found.save_label("c", upload(tmp_path, "drawn.xml", "second"), "final", {})
    (tmp_path / "studies" / folder / "c.tif").rename(tmp_path / "second.tif")
    refreshed()
    for name, said in (
        ("first", (SAID["weak_label"] if is_said else None, "first" if is_drawn else None)),
        ("second", ({"tumor": 0}, "second")),
    ):
        shutil.copy(tmp_path / f"{name}.tif", tmp_path / "studies" / folder / "c.tif")
        assert said_and_drawn(refreshed()) == said
        (tmp_path / "studies" / folder / "c.tif").unlink()
        refreshed()


def test_a_label_does_not_pass_to_an_upload_of_the_same_name(store, tmp_path):
    opened = store()
    opened.update_image_info("b", SAID)
    opened.save_label("b", upload(tmp_path, "drawn.xml", "first"), "final", {})
    (tmp_path / "studies" / "b.tif").rename(tmp_path / "b.tif")
    opened.refresh()
    opened.add_image("b", upload(tmp_path, "new.tif", "another patient's"), {"weak_label": {"tumor": 0}})
    opened.refresh()
    assert said_and_drawn(opened, "b") == ({"tumor": 0}, None)
    opened.remove_image("b")
    opened.add_image("b", str(tmp_path / "b.tif"), {})
    opened.refresh()
    assert said_and_drawn(opened, "b") == (SAID["weak_label"], "first")


def test_a_slide_that_is_back_in_part_has_its_label_when_it_is_complete(store, tmp_path):
    opened = store()
    opened.update_image_info("c", SAID)
    opened.save_label("c", upload(tmp_path, "drawn.xml", "drawn"), "final", {})
    file = tmp_path / "studies" / "sub" / "c.tif"
    content = file.read_bytes()
    for part, expected in ((None, None), (content[:3], (None, None)), (content, (SAID["weak_label"], "drawn"))):
        file.unlink() if part is None else file.write_bytes(part)
        opened.refresh()
        assert part is None or said_and_drawn(opened) == expected


def test_what_was_kept_without_the_content_counts_for_a_file_of_that_name_and_is_said(store, tmp_path, caplog):
    (tmp_path / "studies" / "labels" / "final").mkdir(parents=True)
    (tmp_path / "studies" / "labels" / "final" / "c.xml").write_text("drawn")
    kept = {"c": {**SAID, "name": "sub/c.tif", "ts": 5}, "b": {**SAID, "name": "sub/b.svs", "ts": 5}}
    (tmp_path / "studies" / "labels" / "gone.json").write_text(json.dumps(kept))
    opened = store()
    assert said_and_drawn(opened) == (SAID["weak_label"], "drawn")
    assert "sub/c.tif: the label kept for 'c'" in caplog.text
    assert said_and_drawn(opened, "b") == (None, None)
    # From now on its content is known.
    replace(tmp_path, opened.refresh)
    assert said_and_drawn(opened) == (None, None)


def test_a_labelled_file_that_was_replaced_in_its_place_is_said(store, tmp_path, caplog):
    store().update_image_info("c", SAID)
    (tmp_path / "studies" / "sub" / "c.tif").write_bytes(b"another")
    opened = store()
    assert "c.tif has changed since 'c' was labelled" in caplog.text
    assert said_and_drawn(opened) == (SAID["weak_label"], None)
    caplog.clear()
    opened.update_image_info("c", SAID)
    store()
    assert "has changed" not in caplog.text


def test_a_label_stays_with_the_file_that_was_put_in_the_place_of_its_slide(store, tmp_path, caplog):
    """Also when that is gone for a while, and whether the server runs or not."""
    file, elsewhere = tmp_path / "studies" / "sub" / "c.tif", tmp_path / "elsewhere.tif"
    opened = store()
    opened.update_image_info("c", SAID)
    opened.save_label("c", upload(tmp_path, "drawn.xml", "drawn"), "final", {})
    file.write_bytes(b"scanned again")
    opened.refresh()
    for is_running in (True, False):
        file.rename(elsewhere)
        opened.refresh() if is_running else store()
        elsewhere.rename(file)
        caplog.clear()
        opened.refresh()
        assert said_and_drawn(opened) == said_and_drawn(store()) == (SAID["weak_label"], "drawn")
        assert "c.tif has changed since 'c' was labelled" in caplog.text
    with pytest.raises(Refusal, match="content_key_now of a slide cannot be set"):
        opened.update_image_info("c", {"content_key_now": "0"})
    # The labelled one counts as well, any other does not.
    for content, expected in ((b"sub/c.tif", (SAID["weak_label"], "drawn")), (b"another patient's", (None, None))):
        file.unlink()
        opened.refresh()
        file.write_bytes(content)
        opened.refresh()
        assert said_and_drawn(opened) == expected


def test_of_a_file_that_was_put_in_the_place_of_a_slide_the_label_that_was_said_of_it_counts(store, tmp_path):
    file, opened = tmp_path / "studies" / "sub" / "c.tif", store()

    def put(content, label=None):
        file.write_bytes(content)
        opened.refresh()
        if label is not None:
            opened.update_image_info("c", {"weak_label": label})

    def remove():
        file.unlink()
        opened.refresh()

    put(b"first", {"tumor": 1})
    put(b"second")
    remove()
    put(b"second", {"tumor": 0})
    remove()
    for content, label in ((b"second", {"tumor": 0}), (b"first", {"tumor": 1}), (b"second", {"tumor": 0})):
        put(content)
        assert opened.get_image_info("c")["weak_label"] == label
        remove()
    # Nothing is known of a slide that was removed, whatever it had taken the place of.
    put(b"second")
    opened.remove_image("c")
    put(b"second")
    assert "weak_label" not in opened.get_image_info("c")


def test_a_proposal_of_a_slide_that_is_back_in_part_does_not_cost_its_label(store, tmp_path, caplog):
    opened, file = store(), tmp_path / "studies" / "sub" / "c.tif"
    opened.update_image_info("c", SAID)
    opened.save_label("c", upload(tmp_path, "drawn.xml", "drawn"), "final", {})
    content, proposed = file.read_bytes(), {"strategy": {"unlabelled": {"ts": 5}}}
    file.unlink()
    opened.refresh()
    file.write_bytes(content[:3])
    opened.refresh()
    opened.update_image_info("c", proposed)
    opened.refresh()
    assert said_and_drawn(opened) == (None, None)
    file.write_bytes(content)
    caplog.clear()
    opened.refresh()
    assert said_and_drawn(opened) == said_and_drawn(store()) == (SAID["weak_label"], "drawn")
    assert opened.get_image_info("c")["strategy"] == proposed["strategy"]
    # It is the file that was labelled, and the part of it was not.
    assert "has changed" not in caplog.text
