"""`models/model_info.json`, which MONAI reads from a repository of bundles, and `large_files.yml`, which a clone downloads by."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import yaml

from shared.writers import atomic_path

from .archive import checksum

# What the zoo's repository holds no file above.
LARGE_BYTES = 25_000_000
LARGE_FILES_NAME = "large_files.yml"
# MONAI lists the assets of a release of this name, and reads model_info.json of any other tag.
DEFAULT_TAG = "hosting_storage_v1"


def read_model_info(path: Path) -> dict[str, dict[str, str]]:
    """``{<name>_v<version>: {"checksum": SHA-1 of the zip, "source": its address}}``; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        info: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    return info


def check_unchanged(path: Path, entry: str, digest: str) -> None:
    """Refuse a version that was packed before with other bytes.

    Raises:
        ValueError: if the file has this entry under another checksum.
    """
    known = read_model_info(path).get(entry, {}).get("checksum", digest)
    if known != digest:
        raise ValueError(
            f"{entry} is already in {path} with another checksum ({known}; now {digest}): users who have that version would not "
            "get this one. Raise the version in the bundle's metadata.json and add its line to the changelog"
        )


def record(path: Path, entry: str, digest: str, source: str) -> None:
    """Write or update one entry of ``model_info.json``.

    Args:
        path: the file; the other entries stay.
        entry: ``<name>_v<version>``.
        digest: SHA-1 of the zip.
        source: address of the zip.

    Raises:
        ValueError: if the version is there already under another checksum.
    """
    check_unchanged(path, entry, digest)
    info = read_model_info(path) | {entry: {"checksum": digest, "source": source}}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(dict(sorted(info.items())), indent=4) + "\n", encoding="utf-8")


def write_large_files(bundle: Path, files: dict[str, tuple[Path, str]]) -> None:
    """Say where a clone finds the files that no repository holds, or remove the list where there is none.

    ``python -m monai.bundle download_large_files --bundle_path <bundle>`` downloads and checks them.

    Args:
        bundle: the bundle's folder in the repository.
        files: of each path in the bundle: the file as it was packed, and its address.
    """
    listed = [
        {"path": name, "url": address, "hash_val": checksum(file, "sha256"), "hash_type": "sha256"}
        for name, (file, address) in sorted(files.items())
    ]
    path = bundle / LARGE_FILES_NAME
    if not listed:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump({"large_files": listed}, sort_keys=False, width=200), encoding="utf-8")


def release_address(release: str | None, repository: Path, out: Path) -> str:
    """Where a release's files lie: ``https://github.com/<owner>/<repository>/releases/download/<tag>``.

    Args:
        release: ``owner/repository/tag``, as ``--repo`` of MONAI's downloader; None takes the checkout's ``origin`` if it is on
            GitHub.
        repository: the checkout.
        out: without both, this folder as a ``file:`` address, good for trying and not for publishing.

    Raises:
        ValueError: for a `release` of another form.

    >>> release_address("someone/bundles/first", Path(), Path())
    'https://github.com/someone/bundles/releases/download/first'
    """
    if release is None:
        release = _origin(repository)
        if release is None:
            return out.resolve().as_uri()
    parts = release.split("/")
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"--release must be owner/repository/tag, as in someone/bundles/{DEFAULT_TAG}; got {release}")
    owner, name, tag = parts
    return f"https://github.com/{owner}/{name}/releases/download/{tag}"


def _origin(repository: Path) -> str | None:
    command = ["git", "-C", str(repository), "remote", "get-url", "origin"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    matched = re.search(r"github\.com[:/]([^/]+)/([^/]+?)(?:\.git)?/?$", found)
    return f"{matched[1]}/{matched[2]}/{DEFAULT_TAG}" if matched else None
