import pytest

from shared.writers import atomic_path, contended_path


def test_final_name_appears_at_the_end_only(tmp_path):
    final = tmp_path / "new" / "model.pt"
    with atomic_path(final) as temporary:
        temporary.write_text("weights")
        assert not final.exists()
        assert temporary.parent == final.parent
    assert [path.name for path in final.parent.iterdir()] == ["model.pt"]
    assert final.read_text() == "weights"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_keeps_the_old_file_and_removes_the_temporary(tmp_path, error):
    final = tmp_path / "labels.csv"
    final.write_text("old")
    with pytest.raises(error), atomic_path(final) as temporary:  # noqa: PT012 - the block is what is tested
        temporary.write_text("half")
        raise error
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_leftovers_of_a_killed_run_are_overwritten(tmp_path):
    (tmp_path / "a.txt.part").write_text("x" * 100)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"


def test_two_writers_of_a_contended_path(tmp_path):
    final = tmp_path / "new/tissue.png"
    with contended_path(final) as first:
        first.write_text("first")
        with contended_path(final) as second:
            second.write_text("second")
            assert first.read_text() == "first"
        assert final.read_text() == "second"
    assert final.read_text() == "first"
    assert [path.name for path in final.parent.iterdir()] == ["tissue.png"]


def test_an_error_of_one_writer_leaves_the_other_s_file(tmp_path):
    final = tmp_path / "tissue.png"
    final.write_text("of another")
    with pytest.raises(KeyboardInterrupt), contended_path(final) as temporary:  # noqa: PT012 - the block is what is tested
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of another"]
