"""The studies folder keeps what is in it: no upload takes the place of a slide, no label goes with a file that comes back."""

import unicodedata

import pytest

from scripts.label_server.refusal import Refusal

SAID = {"weak_label": {"tumor": 1, "fraction": 0.1}}


@pytest.fixture
def store(monai_label, tmp_path):
    """Opens the studies folder, as a server does when it starts."""
    from scripts.label_server.studies.datastore import SlideDatastore

    (tmp_path / "studies" / "sub").mkdir(parents=True)
    for name in ("a.tif", "a.svs", "b.tif", "sub/c.tif"):
        (tmp_path / "studies" / name).write_bytes(name.encode())
    return lambda: SlideDatastore(str(tmp_path / "studies"), auto_reload=False)


def upload(tmp_path, name, content=""):
    (tmp_path / name).write_text(content)
    return str(tmp_path / name)


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
