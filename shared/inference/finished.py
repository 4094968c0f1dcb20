"""Which images an earlier run has finished."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import nn

from ..data.tissue_cache import content_key
from ..writers import write_row
from .inputs import ImageInput
from .slide_results import RESULT_SUFFIXES


def weights_sha256(network: nn.Module) -> str:
    """Hash of a network's parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(settings: Mapping[str, Any], image: ImageInput) -> str:
    """What one image's result depends on - settings, the file's content, given mpp - in 16 letters, the same in a copy."""
    content = None
    if image.path.is_file():
        status = image.path.stat()
        content = content_key(str(image.path), status.st_size, status.st_mtime_ns)
    parts = orjson.dumps([dict(settings), content, image.mpp], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(parts).hexdigest()[:16]


def is_finished(output_dir: Path, name: str, row: Mapping[str, str] | None, wanted_fingerprint: str) -> bool:
    """Whether the table's `row` of an image says ok for this fingerprint and all its files exist."""
    return (
        row is not None
        and row.get("status") == "ok"
        and row.get("fingerprint") == wanted_fingerprint
        and all((output_dir / f"{name}{suffix}").is_file() for suffix in RESULT_SUFFIXES)
    )


def discard(table: Path, name: str, row: Mapping[str, str] | None) -> None:
    """Take back an earlier result, its row first.

    A run that is killed from here on must not leave new files beside an old row that calls them finished.
    """
    if row is not None:
        write_row(table, {"slide": name, "status": "unfinished"})
    for suffix in RESULT_SUFFIXES:
        (table.parent / f"{name}{suffix}").unlink(missing_ok=True)
