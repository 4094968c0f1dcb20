"""Zips of the same files are the same bytes; damaged ones are refused."""

import os
import zipfile

import pytest

from scripts.packing.archive import checksum, unpack, write_archive


@pytest.fixture
def folder(tmp_path):
    """A bundle's folder of a few files."""
    top = tmp_path / "some" / "camel"
    for name, content in {"models/model.pt": b"weights" * 999, "LICENSE": b"free", "configs/train.json": b"{}"}.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return top


@pytest.fixture
def archive(folder, tmp_path):
    path = tmp_path / "camel_v1.0.0.zip"
    write_archive(folder, path)
    return path


def test_times_permissions_and_place_leave_no_trace(folder, archive, tmp_path):
    other = tmp_path / "elsewhere" / "camel"
    other.mkdir(parents=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            copy = other / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o700)
            os.utime(copy, (1, 1))
    write_archive(other, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_entries_are_sorted_and_of_one_time(archive):
    with zipfile.ZipFile(archive) as packed:
        entries = packed.infolist()
    assert [entry.filename for entry in entries] == ["camel/LICENSE", "camel/configs/train.json", "camel/models/model.pt"]
    assert {(entry.date_time, entry.external_attr >> 16) for entry in entries} == {((1980, 1, 1, 0, 0, 0), 0o100644)}


def test_unpacks_to_the_same_files(folder, archive, tmp_path):
    found = unpack(archive, tmp_path / "new")
    assert found == tmp_path / "new" / "camel"
    assert (found / "models/model.pt").read_bytes() == (folder / "models/model.pt").read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_refuses_a_truncated_zip(archive, tmp_path, share):
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"camel_v1\.0\.0\.zip is not a complete zip file"):
        unpack(archive, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_refuses_an_altered_zip(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[content.index(b"weights")] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"was altered: the checksum of camel/models/model\.pt"):
        unpack(archive, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("entry", ["../escaped", "camel/../../escaped", "other/file", "camel"])
def test_refuses_entries_outside_the_bundle(tmp_path, entry):
    path = tmp_path / "camel_v1.0.0.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(entry, "x")
    with pytest.raises(ValueError, match="every entry must lie in camel/"):
        unpack(path, tmp_path / "new")


def test_refuses_links(folder, tmp_path):
    (folder / "shared").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="shared is a link"):
        write_archive(folder, tmp_path / "linked.zip")


def test_checksum_is_sha1_of_the_bytes(archive):
    import hashlib

    assert checksum(archive) == hashlib.sha1(archive.read_bytes()).hexdigest()
