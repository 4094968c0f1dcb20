"""Whether any file of a slide has changed."""

import os

import pytest

from shared.wsi.slide_files import SlideStates


@pytest.mark.parametrize(
    ("slide", "companion", "other"),
    [
        ("a.mrxs", "a/Data0000.dat", "b/Data0000.dat"),
        ("a.vms", "a-0.jpg", "b-0.jpg"),
        ("a.dcm", "level1.DCM", "notes.txt"),
        ("a.svs", "a.svs", "a/Data0000.dat"),
    ],
)
def test_a_slide_has_changed_when_one_of_its_own_files_has(tmp_path, slide, companion, other):
    for folder in "ab":
        (tmp_path / folder).mkdir()
    (tmp_path / slide).write_text("[Virtual Microscope Specimen]\nImageFile=a-0.jpg\nMapFile=a_map2.jpg\n")
    file = tmp_path / companion
    file.touch()
    os.utime(file, ns=(1, 1))

    def state():
        return SlideStates().of(tmp_path / slide)

    states = [state()]
    (tmp_path / other).write_text("of another slide")
    assert state() == states[0]
    os.utime(file, ns=(2, 2))
    states.append(state())
    file.write_text("longer")
    os.utime(file, ns=(2, 2))
    states.append(state())
    os.utime(file, ns=(1, 1))
    states.append(state())
    if companion != slide:
        file.unlink()
        states.append(state())
        file.touch()
        os.utime(file, ns=(1, 1))
        assert state() == states[0]
    assert len(set(states)) == len(states)


def test_a_slide_that_is_not_there_has_no_state(tmp_path):
    with pytest.raises(FileNotFoundError):
        SlideStates().of(tmp_path / "a.mrxs")
