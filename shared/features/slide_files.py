"""The files of features in a folder: which is that of a slide, and whether they may be used together."""

from __future__ import annotations

from pathlib import Path

from ..geometry.pyramid import MPP_TOLERANCE
from ..wsi.file_names import existing_file
from .slide_features import FEATURES_SUFFIX, SlideFeatures

# Of two files that each may differ from one nominal size by the tolerance, one above it and one below.
_LARGEST_RATIO = (1 + MPP_TOLERANCE) / (1 - MPP_TOLERANCE)


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
    """The first of `features_files` that is there, however its accents are written (`shared.wsi.file_names`); where none is, the
    one that this project would write."""
    files = [existing_file(path) for path in features_files(folder, slide, name)]
    return next((path for path in files if path.is_file()), files[-1])


def open_features(folder: str | Path, slide: str | Path, slide_mpp: float | None = None) -> SlideFeatures:
    """Open the features of a slide, see `SlideFeatures.open`.

    Raises:
        ValueError: naming each file that they may have, if none is there; naming the file, if it cannot be used.
    """
    file = features_file(folder, slide)
    if not file.is_file():
        raise ValueError(f"{missing_files(features_files(folder, slide))}: embed the slide first")
    return SlideFeatures.open(file, slide_mpp)


def missing_files(files: list[Path]) -> str:
    """What an error says of files of which any one would do.

    >>> missing_files([Path("a.ome.h5"), Path("a.h5")])
    'a.h5 does not exist, and neither does a.ome.h5'
    """
    *others, own = map(str, files)
    return f"{own} does not exist{''.join(f', and neither does {path}' for path in others)}"


def has_mpp_of(features: SlideFeatures, mpp: float) -> bool:
    """Whether the encoder was given pixels of `mpp` micrometres, to 2 %; True for files that do not state it."""
    return features.mpp is None or abs(features.mpp / mpp - 1) <= MPP_TOLERANCE


def check_alike(first: SlideFeatures, second: SlideFeatures) -> None:
    """Check that two files are of the same nominal pixel size and stride, as far as they state them.

    A slide whose pixels, or a whole multiple of them, are within 2 % of the wanted size is read as it is. So one setting makes
    files from 2 % below to 2 % above it, and two of them may differ by 4.1 %.

    Raises:
        ValueError: naming both files.
    """
    for what, one, other in (
        ("um per pixel", first.mpp, second.mpp),
        ("um from patch to patch", first.stride_um, second.stride_um),
    ):
        if one is not None and other is not None and max(one / other, other / one) > _LARGEST_RATIO:
            raise ValueError(
                f"{second.path} and {first.path} contain features that do not fit together: expected {one:g} {what}, found "
                f"{other:g}. Embed all slides with the same settings"
            )
