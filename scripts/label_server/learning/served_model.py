"""A served bundle, whose mapper is loaded on first use and again when its weights have changed."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from scripts.declarations.network_items import NETWORK, needed_items
from shared.inference.bundle_mapper import CHECKPOINT_NAME, load_slide_mapper
from shared.inference.slide_mapper import SlideMapper
from shared.writers.geojson import TUMOUR_CLASS
from shared.writers.palette import TUMOUR_COLOUR, class_colour

from .versions import ModelVersions, Version

logger = logging.getLogger(__name__)

CONFIG = "config.json"
# Next to the weights of a head that comes with the repository, see `scripts/ship.py`.
HEAD = "inference.json"
# Keys of inference.json and train.json for a folder of slide features.
STORED_FEATURES, SLIDE_FEATURES = "stored_features", "slide_features"


@dataclass(frozen=True)
class BundleSource:
    """A bundle to be served.

    Args:
        folder: folder of the bundle.
        checkpoint: checkpoint of its network.
        overlays: overlays of its ``train.json`` and ``inference.json``: names in its ``configs`` (``unet``), or paths.
        head: configuration of a shipped head, an overlay of ``inference.json`` only; None for the network of a training.
    """

    folder: Path
    checkpoint: Path
    overlays: tuple[str, ...] = ()
    head: Path | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A mapper, its version and its settings, under which its maps are stored."""

    mapper: SlideMapper
    version: Version
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The first 12 characters of the weights' SHA-256."""
        return str(self.settings["weights_sha256"])[:12]

    @property
    def labels(self) -> dict[str, tuple[int, int, int]]:
        """The classes of its outlines, with their colours."""
        names = self.mapper.class_names
        return {TUMOUR_CLASS: TUMOUR_COLOUR} if names is None else {name: class_colour(i) for i, name in enumerate(names) if i}


class ServedModel:
    """One bundle and its versions.

    Args:
        name: name by which clients request it.
        source: the bundle.
        folder: folder of the server for the versions that are trained here.
        overrides: keys of its ``inference.json`` and their values.
        features: folder of the slides' stored features; None for a bundle that maps from pixels, or stores them itself.
        mpp: micrometres per pixel at which it maps slides if its training states none, having read images as they are stored.
    """

    def __init__(
        self,
        name: str,
        source: BundleSource,
        folder: str | Path,
        overrides: Mapping[str, Any] | None = None,
        features: Path | None = None,
        mpp: float | None = None,
    ) -> None:
        self._mpp = mpp
        self.name, self.source, self.features = name, source, features
        stored = {} if features is None else {STORED_FEATURES: str(features), **encoder_keys(features)}
        self.overrides = {**(overrides or {}), **stored}
        self.versions = ModelVersions(folder, source.checkpoint)
        metadata = json.loads((source.folder / "configs" / "metadata.json").read_text())
        self.description = str(metadata.get("task") or metadata.get("description") or name)
        self._loaded: LoadedModel | None = None
        self._lock = threading.Lock()

    def loaded(self) -> LoadedModel:
        """The current version, ready to map.

        Raises:
            ValueError: if the bundle or its checkpoint cannot be loaded.
        """
        with self._lock:
            version = self.versions.current
            if self._loaded is None or self._loaded.version != version:
                self._loaded = self.load(version)
            return self._loaded

    def answer_with(self, loaded: LoadedModel, version: Version) -> None:
        """Serve a mapper that was loaded for a check, before its folder was renamed to that of a version."""
        with self._lock:
            self._loaded = replace(loaded, version=version)

    def load(self, version: Version) -> LoadedModel:
        """A version, whether or not it is the current one."""
        logger.info("%s: loading version %s from %s", self.name, version.name, version.checkpoint)
        trained_with = inference_settings(self.source, version.checkpoint)
        overrides = trained_with | self.overrides | {"checkpoint": str(version.checkpoint)}
        has_none = plain_value(training_config(version.checkpoint).get("mpp", "")) is None
        if self._mpp is not None and has_none and self.overrides.get("mpp") is None:
            logger.info(
                "%s was trained on images as they are stored (mpp null); it maps slides, and is trained on them, at %g um per "
                "pixel, as given by --train_set mpp",
                *(self.name, self._mpp),
            )
            overrides["mpp"] = self._mpp
        head = [] if self.source.head is None else [str(self.source.head)]
        mapper = load_slide_mapper(self.source.folder, [*self.source.overlays, *head], overrides)
        return LoadedModel(mapper, version, mapper.settings())


def find_bundles(
    folder: Path,
    names: Sequence[str] = (),
    checkpoints: Mapping[str, Path] | None = None,
    overlays: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, BundleSource]:
    """Find the bundles of a folder that can be served, which are those with a trained network.

    Args:
        folder: folder of bundles, of this repository or unpacked.
        names: names of the bundles to serve; empty for all that have a checkpoint.
        checkpoints: bundle -> checkpoint in place of its ``models/model.pt``: a file, the output folder of a training, or the
            folder of a head that comes with the bundle.
        overlays: bundle -> overlays.

    Raises:
        ValueError: if the folder does not contain a named bundle, or a named bundle has no checkpoint.
    """
    checkpoints, overlays = checkpoints or {}, overlays or {}
    there = sorted(path.parents[1].name for path in folder.glob("*/configs/inference.json"))
    missing = [name for name in (*names, *checkpoints, *overlays) if name not in there]
    if missing:
        raise ValueError(f"{folder} contains no bundle {', '.join(missing)}; it contains {', '.join(there) or 'none'}")
    found: dict[str, BundleSource] = {}
    for name in names or there:
        given = checkpoints.get(name, folder / name / "models" / CHECKPOINT_NAME)
        checkpoint = given / CHECKPOINT_NAME if given.is_dir() else given
        if checkpoint.is_file():
            head = checkpoint.resolve().with_name(HEAD)
            given_overlays = tuple(overlays.get(name, ()))
            found[name] = BundleSource(
                (folder / name).resolve(), checkpoint.resolve(), given_overlays, head if head.is_file() else None
            )
        elif names or name in checkpoints:
            raise ValueError(
                f"{name} has no trained network: {checkpoint} does not exist. Train it, or give --checkpoint {name}=PATH"
                f"{_heads_of(folder / name)}"
            )
        else:
            logger.warning("%s is left out: it has no trained network (%s)%s", name, checkpoint, _heads_of(folder / name))
    if not found:
        raise ValueError(f"no bundle of {folder} has a trained network: train one, or give --checkpoint NAME=PATH")
    return found


def encoder_keys(features: Path) -> dict[str, str]:
    """Keys with which a bundle on features loads the weights of its encoder only if it has something to encode."""
    return {"encoder_def::_target_": "shared.encoders.encoder_of_features", "encoder_def::features": str(features)}


def check_features(sources: Mapping[str, BundleSource], folders: Mapping[str, Path]) -> None:
    """Check that each folder of features belongs to a served bundle that works on features of slides.

    Raises:
        ValueError: naming the bundle or the folder.
    """
    for name, folder in folders.items():
        if name not in sources:
            raise ValueError(f"--features {name}={folder}: {name} is not served; the served models are {', '.join(sources)}")
        if not folder.is_dir():
            raise ValueError(f"--features {name}={folder}: the folder does not exist; create it with scripts/embed.py")
        keys = {key for path in config_files(sources[name], "train") for key in json.loads(path.read_text())}
        if SLIDE_FEATURES not in keys:
            raise ValueError(
                f"--features {name}={folder}: expected a bundle that learns from features of slides, found no key "
                f"{SLIDE_FEATURES!r} in its configuration: serve it with --overlay {name}=features"
            )


def _heads_of(bundle: Path) -> str:
    """The heads that come with a bundle, as the end of a message."""
    heads = sorted(path.parent for path in bundle.glob(f"models/*/{HEAD}"))
    return "".join(f"; --checkpoint {bundle.name}={head} is a head that comes with it, see its README.md" for head in heads)


def training_config(checkpoint: Path) -> dict[str, Any]:
    """The configuration with which a checkpoint was trained, from the file next to it; empty if there is none."""
    path = checkpoint.with_name(CONFIG)
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def inference_settings(source: BundleSource, checkpoint: Path) -> dict[str, Any]:
    """Keys of a bundle's inference with their values in training.

    These are the keys that the inference compares with the training (``check_training``) and those that define its network.
    """
    trained = training_config(checkpoint)
    parser = ConfigParser()
    parser.read_config([str(path) for path in config_files(source, "inference")])
    config = parser.get()
    check = config.get("check_training", {})
    optional = set(_names(config, check.get("unless_null")))
    of_network = needed_items(config.get(NETWORK), config) if source.head is None else {}
    names = {*_names(config, check.get("keys")), *optional, *of_network}
    found = {name: plain_value(trained[name]) for name in sorted(names) if name in config and is_plain(trained.get(name, "@"))}
    return {name: value for name, value in found.items() if not (name in optional and value is None)}


def config_files(source: BundleSource, kind: str) -> list[Path]:
    """The bundle's configuration of a kind (``train`` or ``inference``), followed by its overlays."""
    configs = source.folder / "configs"
    head = [str(source.head)] if source.head is not None and kind == "inference" else []
    named = [(configs / f"{overlay}.json", Path(overlay)) for overlay in (*source.overlays, *head)]
    return [configs / f"{kind}.json", *(inside if inside.is_file() else path for inside, path in named)]


def is_plain(value: Any) -> bool:
    """Whether an item of a configuration is a plain value rather than a reference, an expression or a component.

    >>> [is_plain(value) for value in (1.0, None, "batch", "$None", ["a", "b"], "@norm", "$1 + 1", {"_target_": "x"})]
    [True, True, True, True, True, False, False, False]
    """
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    if isinstance(value, str):
        return value == "$None" or not value.startswith(("$", "@", "%"))
    return not isinstance(value, dict)


def grouped_items(config: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """The items of a configuration, with ``group::item`` for those of groups; descriptions are left out.

    >>> grouped_items({"lr": 0.1, "cmil": {"lr": 0.2, "_desc_lr": "words"}, "network": {"_target_": "x"}})
    {'lr': 0.1, 'cmil::lr': 0.2, 'network': {'_target_': 'x'}}
    """
    items: dict[str, Any] = {}
    for name, value in config.items():
        if not name.startswith("_"):
            is_group = isinstance(value, Mapping) and "_target_" not in value
            items |= grouped_items(value, f"{group}{name}::") if is_group else {f"{group}{name}": value}
    return items


def plain_value(value: Any) -> Any:
    """The value, with None in place of ``$None``, the command line's spelling of null."""
    return None if value == "$None" else value


def _names(config: Mapping[str, Any], value: Any) -> list[str]:
    """A list of keys, given directly or as a reference to an item."""
    if isinstance(value, str) and value.startswith("@"):
        value = config[value[1:]]
    return [str(item) for item in value or []]
