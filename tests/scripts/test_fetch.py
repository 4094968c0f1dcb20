import hashlib

import pytest

CONTENT = b"a slide"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "there"
    path.write_bytes(CONTENT)
    return path


def test_a_file_is_downloaded_once(run_script, source, tmp_path):
    target = tmp_path / "new" / "slide.svs"
    assert run_script("fetch.py", source.as_uri(), target, SHA256) == ("", "")
    assert target.read_bytes() == CONTENT
    source.unlink()
    assert run_script("fetch.py", source.as_uri(), target, SHA256) == ("", "")


def test_hexadecimal_digits_may_be_capitals(run_script, source, tmp_path):
    """As Windows' certutil and PowerShell write them."""
    target = tmp_path / "slide.svs"
    assert run_script("fetch.py", source.as_uri(), target, SHA256.upper()) == ("", "")
    assert target.read_bytes() == CONTENT


def test_another_content_is_not_kept(run_script, source, tmp_path):
    source.write_bytes(CONTENT[:-1])
    target = tmp_path / "new" / "slide.svs"
    error, _ = run_script("fetch.py", source.as_uri(), target, SHA256)
    assert error.startswith(f"cannot get {source.as_uri()}: ")
    assert f"expected the SHA-256 {SHA256}, found {hashlib.sha256(CONTENT[:-1]).hexdigest()}: the download was cut short" in error
    assert not list(target.parent.iterdir())


def test_a_file_that_is_there_is_left(run_script, source, tmp_path):
    target = tmp_path / "slide.svs"
    target.write_bytes(b"another")
    error, _ = run_script("fetch.py", source.as_uri(), target, SHA256)
    assert f"{target}: expected the SHA-256 {SHA256}" in error
    assert "delete the file" in error
    assert target.read_bytes() == b"another"


def test_an_address_that_does_not_answer(run_script, tmp_path):
    error, _ = run_script("fetch.py", "http://127.0.0.1:9/slide.svs", tmp_path / "slide.svs", SHA256)
    assert error.startswith("cannot get http://127.0.0.1:9/slide.svs: ")
    assert not list(tmp_path.iterdir())
