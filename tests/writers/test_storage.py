import errno
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shared.writers import StorageError, atomic_path, check_writable, storage_error

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB of its own, which may be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("this user may not mount")
    yield folder
    # Lazily: a traceback may still hold a file open.
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path, content):
    with atomic_path(path) as temporary:
        content(temporary)


@pytest.mark.parametrize(
    "content",
    [
        lambda path: path.write_bytes(b"x" * (3 << 20)),
        # Neither torch nor what stands below it gives the system's number.
        lambda path: torch.save({"weights": torch.zeros(1 << 20)}, path),
    ],
    ids=["bytes", "torch"],
)
def test_a_full_disk_is_told_with_its_remedy_and_leaves_nothing(small_disk, content):
    path = small_disk / "model.pt"
    with pytest.raises(StorageError) as raised:
        fill(path, content)
    assert str(raised.value) == (
        f"{path} cannot be written: the disk is full. Free some space, or write to another disk. "
        "The same command then resumes from here."
    )
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.concerns_all
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_is_full_already(small_disk):
    check_writable(small_disk / "new" / "folder")
    (small_disk / "other").write_bytes(b"x" * (2 << 20))
    with pytest.raises(StorageError, match="the disk is full"):
        check_writable(small_disk / "new" / "folder")
    assert [path.name for path in small_disk.iterdir()] == ["other"]


def test_a_read_only_folder(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for call in (lambda: check_writable(small_disk / "a" / "b"), lambda: fill(small_disk / "a" / "b", Path.touch)):
        with pytest.raises(StorageError, match="the file system is read-only"):
            call()


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    for call in (lambda: check_writable(tmp_path / "file/a"), lambda: fill(tmp_path / "file/a/b.csv", Path.touch)):
        with pytest.raises(StorageError, match="a part of its path is a file, not a folder"):
            call()


@pytest.mark.parametrize("writer", ["path.write_bytes(b'x' * 70000)", "torch.save(torch.zeros(70000), path)"])
def test_a_limit_of_the_file_s_size(tmp_path, writer):
    code = f"""
import torch
from shared.writers import atomic_path, StorageError
try:
    with atomic_path({str(tmp_path / "map.tif")!r}) as path:
        {writer}
except StorageError as error:
    print(error.concerns_all, error)
"""
    limit = 1 << 15
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert process.stdout.startswith(f"False {tmp_path / 'map.tif'} cannot be written: the file is larger"), process.stderr
    assert list(tmp_path.iterdir()) == []


def test_errors_of_what_is_read_stay_as_they_are(tmp_path):
    other = PermissionError(errno.EACCES, "Permission denied", "/somewhere/else.svs")
    for error in (other, FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path)), ValueError("x"), RuntimeError("x")):
        assert storage_error(error, tmp_path / "new.csv") is None
        with pytest.raises(type(error)) as raised, atomic_path(tmp_path / "new.csv"):
            raise error
        assert raised.value is error


def test_what_is_written_by_another_process_arrives_as_it_was():
    error = StorageError(errno.EROFS, "maps cannot be written")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.errno) == (StorageError, "maps cannot be written", errno.EROFS)


def test_access_rights(tmp_path):
    if os.getuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="you do not have permission to write there"):
        check_writable(tmp_path / "new")


def test_a_file_system_that_does_not_count_is_not_full(tmp_path):
    """As those of object stores, ``/proc`` says that it has 0 bytes, of which 0 are free."""
    if os.getuid() != 0:
        pytest.skip("/proc is no folder of this user")
    assert os.statvfs("/proc").f_blocks == 0
    check_writable("/proc")
