"""The settings by which the results of an output folder were made: ``settings.json``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from ...features.slide_features import FEATURES_SUFFIX
from ...writers.atomic import contended_path
from .feature_settings import unlike
from .finished import FEATURES, MAP_SUFFIX, NOT_DECISIVE

SETTINGS_NAME = "settings.json"

logger = logging.getLogger(__name__)


def claim_folder(output_dir: Path, settings: Mapping[str, Any]) -> str | None:
    """Write the settings into a folder that is to hold their results.

    Maps of other settings are replaced one by one, and a warning says that those of other slides stay. Features, which take much
    longer, are not replaced: two encoders' features in one folder would be mixed in a training, and it takes but a wrong option
    to lose the first one's. The folder of tissue masks with which features were made stays in the settings until another is
    named.

    Returns:
        the folder of tissue masks with which features in the folder were made, if any.

    Raises:
        ValueError: naming the folder and every setting that differs, if it holds features made with others; if it holds maps
            where features are to be written, or features where maps are; and if features are to be written where there are files
            of features without settings, which are not this project's to replace.
    """
    known = _read(output_dir / SETTINGS_NAME)
    is_features = settings.get("result") == FEATURES
    if known is not None:
        holds_features = known.get("result") == FEATURES and any(output_dir.glob(f"*{FEATURES_SUFFIX}"))
        holds_maps = known.get("result") != FEATURES and any(output_dir.glob(f"*{MAP_SUFFIX}"))
        if (is_features and holds_maps) or (not is_features and holds_features):
            found, wanted = ("features", "maps") if holds_features else ("maps", "features")
            raise ValueError(f"{output_dir} contains {found}: give {wanted} a separate folder")
        if is_features and holds_features:
            _check_same(output_dir, known, settings)
        if holds_maps and (differences := _differences(known, settings)):
            logger.warning(
                "%s contains maps that were made with other settings (%s): this run replaces those of its own slides, and all "
                "others stay as they are",
                output_dir,
                differences,
            )
    if is_features and (known is None or known.get("result") != FEATURES):
        _check_free(output_dir)
    masks = known.get("tissue_dir") if is_features and known is not None else None
    if masks is not None and settings.get("tissue_dir") is None:
        settings = {**settings, "tissue_dir": masks}
    with contended_path(output_dir / SETTINGS_NAME) as temporary:
        temporary.write_bytes(orjson.dumps(settings, option=orjson.OPT_INDENT_2))
    return masks


def _check_free(output_dir: Path) -> None:
    found = sorted(path.name for path in output_dir.glob(f"*{FEATURES_SUFFIX}"))
    if found:
        names = ", ".join([*found[:3], "..."][: len(found)])
        raise ValueError(
            f"{output_dir} contains {len(found)} files of features ({names}) and no {SETTINGS_NAME} that describes how they were "
            "made: they may belong to another program, and would be replaced. Give another folder; to train on them as they "
            "are, append foreign_features.json to the configurations, or switch embedding off (--run_embed '$None')"
        )


def _check_same(output_dir: Path, known: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    if found := unlike(output_dir, known, settings):
        raise ValueError(f"{output_dir} contains features that were made with other settings, and these are never mixed {found}")


def _differences(known: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    # As they come back from JSON.
    wanted = orjson.loads(orjson.dumps(settings))
    names = [name for name in {**known, **wanted} if name not in NOT_DECISIVE and known.get(name) != wanted.get(name)]
    return "; ".join(f"{name}: expected {wanted.get(name)}, found {known.get(name)}" for name in names)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        settings = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
        return None
    return settings if isinstance(settings, dict) else None
