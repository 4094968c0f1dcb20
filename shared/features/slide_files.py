"""The files of features of a slide in a folder, by the name of the slide's file."""

from __future__ import annotations

from pathlib import Path

from .slide_features import FEATURES_SUFFIX, SlideFeatures


def features_files(folder: str | Path, slide: str | Path, name: str | None = None) -> list[Path]:
    """The files that a slide's features may have, the one of this project last.

    That is ``a.h5`` for ``a.svs`` and for ``a.ome.tif``. Other programs drop the last ending alone, so theirs of the latter may
    be ``a.ome.h5``; this project never writes one.

    Args:
        folder: of the features.
        slide: file of the slide.
        name: of its results, where it is not the name of the slide's file.

    >>> [path.as_posix() for path in features_files("features", "slides/a.ome.tif")]
    ['features/a.ome.h5', 'features/a.h5']
    >>> [path.as_posix() for path in features_files("features", "slides/a.svs")]
    ['features/a.h5']
    """
    stem = Path(slide).stem
    bare = stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem
    own = bare if name is None else name
    names = [stem, own] if own == bare != stem else [own]
    return [Path(folder) / f"{name}{FEATURES_SUFFIX}" for name in names]


def features_file(folder: str | Path, slide: str | Path, name: str | None = None) -> Path:
    """The first of `features_files` that is there; where none is, the one that this project would write."""
    files = features_files(folder, slide, name)
    return next((path for path in files if path.is_file()), files[-1])


def open_features(folder: str | Path, slide: str | Path, slide_mpp: float | None = None) -> SlideFeatures:
    """Open the features of a slide, see `SlideFeatures.open`.

    Raises:
        ValueError: naming each file that they may have, if none is there; naming the file, if it cannot be used.
    """
    files = features_files(folder, slide)
    if not any(path.is_file() for path in files):
        raise ValueError(f"{missing_files(files)}: embed the slide first")
    return SlideFeatures.open(features_file(folder, slide), slide_mpp)


def missing_files(files: list[Path]) -> str:
    """What an error says of files of which any one would do.

    >>> missing_files([Path("a.ome.h5"), Path("a.h5")])
    'a.h5 does not exist, and neither does a.ome.h5'
    """
    *others, own = map(str, files)
    return f"{own} does not exist{''.join(f', and neither does {path}' for path in others)}"
