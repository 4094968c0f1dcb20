"""Where trainings have left their weights."""

from __future__ import annotations

from pathlib import Path


def find_checkpoints(pattern: str) -> list[str]:
    """The files of a pattern such as ``runs/*/model.pt``, sorted.

    Raises:
        ValueError: naming the pattern, if there are none.
    """
    path = Path(pattern)
    found = sorted(str(file) for file in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if file.is_file())
    if not found:
        raise ValueError(f"no file matches {pattern}: --runs must match the model.pt of each network, as in 'runs/*/model.pt'")
    return found
