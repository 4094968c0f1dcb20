"""Downloads a file once, and keeps it only if its content is the expected one.

python scripts/fetch.py URL PATH SHA256

Exit status: 0 when the file is at PATH with that content, 1 when it cannot be had; one line gives the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import shutil
import sys
import uuid
from pathlib import Path
from urllib.request import urlopen

TIMEOUT_S = 30


def fetch(url: str, path: Path, sha256: str) -> None:
    """Download `url` to `path`, unless the file is already there.

    Raises:
        OSError: if the server cannot be reached, or stops answering.
        ValueError: if the content has another SHA-256; a file that was there is left, a download is not kept.
    """
    if path.is_file():
        _check(path, sha256, "delete the file, or move it away")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
        _check(part, sha256, "the download was cut short, or the file has changed")
        part.replace(path)
    except http.client.HTTPException as error:
        raise OSError(f"the answer is broken ({error!r})") from error
    finally:
        part.unlink(missing_ok=True)


def _check(path: Path, sha256: str, remedy: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256.strip().lower():
        raise ValueError(f"{path}: expected the SHA-256 {sha256}, found {found}: {remedy}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the file")
    parser.add_argument("path", type=Path, help="where to put it")
    parser.add_argument("sha256", help="SHA-256 of its content, in hexadecimal digits")
    arguments = parser.parse_args()
    try:
        fetch(**vars(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"cannot get {arguments.url}: {error}")


if __name__ == "__main__":
    main()
