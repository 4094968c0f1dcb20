"""The methods that can be compared, as bundles declare them, with their overlays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from scripts.declarations.supervision import Supervision, read_supervision

from ..data import MASKS_ONLY, TRUTHS
from ..json_file import read_object

# No overlays of data sets.
_NO_OVERLAYS = {"train", "inference", "evaluate", "metadata"}
# The overlay with which a bundle learns from features of an encoder.
_FEATURES = "features"
_CONFIGS = _NO_OVERLAYS | {"multi_gpu_train", _FEATURES}
_STAGES = {"run", "initialize", "finalize"}
# An overlay that a bundle may have: what differs from its training when it is compared.
_OVERLAY = "comparison"
# Null, as MONAI's command line says it.
_NULL = "$None"
# Keys of a training that the options of compare.py set, and which of them.
_SET_HERE = {"seed": "--seeds", "output_dir": "--out"}


@dataclass(frozen=True)
class Method:
    """A bundle with some of its overlays.

    Attributes:
        bundle: its folder.
        overlays: names of configurations of its ``configs``.
    """

    bundle: Path
    overlays: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Key of the method as on the command line: ``camel+unet``."""
        return "+".join([self.bundle.name, *self.overlays])

    @cached_property
    def title(self) -> str:
        metadata = _config(self.bundle / "configs" / "metadata.json", ("name",))
        overlays = ", ".join(name.replace("_", " ") for name in self.overlays)
        return str(metadata["name"]) + (f" ({overlays})" if overlays else "")

    @property
    def config_files(self) -> list[str]:
        """Configuration files of the training, followed by its overlays and the bundle's own for comparisons."""
        own = [_OVERLAY] if (self.bundle / "configs" / f"{_OVERLAY}.json").is_file() else []
        return [str(self.bundle / "configs" / f"{name}.json") for name in ("train", *self.overlays, *own)]

    @cached_property
    def training(self) -> dict[str, Any]:
        """The configuration of the training, overlays included."""
        for file in self.config_files:
            # MONAI does not say which file is not JSON.
            _config(Path(file))
        return dict(ConfigParser.load_config_files(self.config_files))

    @cached_property
    def overlaid(self) -> dict[str, Any]:
        """The entries of the overlays."""
        return {name: value for overlay in self.overlays for name, value in self._overlay(overlay).items()}

    @cached_property
    def inference_overlays(self) -> tuple[str, ...]:
        """The overlays that are also given after the inference: those that do not change the training's stages."""
        return tuple(overlay for overlay in self.overlays if not _STAGES & self._overlay(overlay).keys())

    @cached_property
    def inference(self) -> dict[str, Any]:
        """The configuration of the inference, with the overlays that follow it."""
        files = [self.bundle / "configs" / f"{name}.json" for name in ("inference", *self.inference_overlays)]
        return {name: value for file in files for name, value in _config(file).items()}

    @property
    def reads_features(self) -> bool:
        """Whether it trains on stored features of an encoder that stays as it is, and maps slides from them."""
        has_features = "features_dir" in self.training and "stored_features" in self.inference
        return has_features and not self.training["network_def"].get("finetune", False)

    @property
    def on_features(self) -> str:
        """Key of the same method on features of an encoder. Empty for one that has an encoder, whose bundle has no such
        overlay, or that has overlays other than a data set's, beside which it need not fit."""
        configs = self.bundle / "configs"
        has_encoder = "features_dir" in self.training
        plain = all(_reads_data(configs / f"{overlay}.json") for overlay in self.overlays)
        return f"{self.key}+{_FEATURES}" if plain and not has_encoder and (configs / f"{_FEATURES}.json").is_file() else ""

    def _overlay(self, name: str) -> dict[str, Any]:
        return _config(self.bundle / "configs" / f"{name}.json")

    @cached_property
    def supervision(self) -> Supervision:
        """The supervision that its bundle declares."""
        return read_supervision(self.bundle)

    @property
    def kind(self) -> str:
        """The kind of records it learns from: ``"slides"`` or ``"images"``."""
        return self.supervision.unit

    def labels(self, settings: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Columns of the manifest that its training learns from: the key ``learned_columns`` of its configuration.

        Args:
            settings: keys and values over those of the configuration.

        Raises:
            ValueError: if the configuration does not say it.
        """
        if "learned_columns" not in self.training:
            raise ValueError(
                f"{self.config_files[0]} has no key 'learned_columns': expected the columns of the manifest that the training "
                'learns from, such as ["label"]'
            )
        return tuple(self.parser(settings).get_parsed_content("learned_columns"))

    def plain_keys(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Keys of its training whose values are numbers, words, lists or null, as written, with these settings."""
        return plain_items(self.training | dict(settings))

    def parser(self, settings: Mapping[str, Any] | None = None) -> ConfigParser:
        """Parser of the training's configuration with these settings; its items are created on demand."""
        parser = ConfigParser()
        parser.read_config(self.config_files)
        parser.read_meta(str(self.bundle / "configs" / "metadata.json"))
        parser.update({"bundle_root": str(self.bundle)} | {name: _given(value) for name, value in (settings or {}).items()})
        return parser


def plain_items(config: Mapping[str, Any]) -> dict[str, Any]:
    """The items of a configuration that are numbers, words, lists or null, as written.

    >>> plain_items({"_desc_": "Steps.", "lr": 0.1, "network_def": {}, "etas": [1, 2], "area": "$None"})
    {'lr': 0.1, 'etas': [1, 2], 'area': None}
    """
    plain = {name: value for name, value in config.items() if not isinstance(value, Mapping) and "_desc" not in name}
    return {name: None if value == _NULL else value for name, value in plain.items()}


def find_methods(bundles: Path, wanted: Sequence[str] = ()) -> list[Method]:
    """The methods of some names, or every bundle of a folder.

    Args:
        bundles: folder of the bundles.
        wanted: names of bundles, with overlays after a plus: ``camel+unet``. None: all bundles, as they are.

    Raises:
        ValueError: for a bundle or overlay that is not there, naming those that are.
    """
    there = sorted(path.parents[1].name for path in bundles.glob("*/configs/train.json"))
    methods = []
    for name in dict.fromkeys(wanted or there):
        bundle, *overlays = name.split("+")
        if bundle not in there:
            raise ValueError(f"there is no bundle {bundle!r} in {bundles}; the bundles are: {', '.join(there)}")
        configs = bundles / bundle / "configs"
        known = sorted(path.stem for path in configs.glob("*.json") if path.stem not in _NO_OVERLAYS)
        for overlay in overlays:
            if overlay not in known:
                raise ValueError(f"the bundle {bundle} has no overlay {overlay!r}; its overlays are: {', '.join(known)}")
        methods.append(Method((bundles / bundle).resolve(), tuple(overlays)))
    return methods


def dataset_of(bundles: Path, manifest: Path) -> str | None:
    """The data set whose overlays read from the folder of a manifest, by its name: ``ebhi_seg`` for data/ebhi_seg."""
    name = manifest.parent.name
    return name if any(_reads_data(path) for path in bundles.glob(f"*/configs/{name}.json")) else None


def datasets(bundles: Path) -> list[str]:
    """Names of the data sets that any bundle of a folder has an overlay of."""
    return sorted({path.stem for path in bundles.glob("*/configs/*.json") if _reads_data(path)})


def with_dataset(method: Method, dataset: str | None) -> Method:
    """The method with its bundle's overlay of a data set before its own overlays, if the bundle has one."""
    path = method.bundle / "configs" / f"{dataset}.json"
    if dataset is None or dataset in method.overlays or not _reads_data(path):
        return method
    return Method(method.bundle, (dataset, *method.overlays))


def truth_of(bundles: Path, dataset: str | None, methods: Sequence[Method]) -> str | None:
    """Which test rows are scored on a data set, as overlays say by their key ``truth``: a value of `TRUTHS`, None if none does.

    All methods are scored on the same rows, so that an overlay of the data set counts in whichever bundle it is.

    Args:
        bundles: folder of the bundles.
        dataset: the data set.
        methods: that are compared, whose own overlays count too.
    """
    overlays = [path for path in bundles.glob(f"*/configs/{dataset}.json") if dataset is not None and _reads_data(path)]
    said = [_config(path).get("truth") for path in overlays] + [one.overlaid.get("truth") for one in methods]
    found = [truth for truth in said if truth in TRUTHS]
    return MASKS_ONLY if MASKS_ONLY in found else next(iter(found), None)


def _reads_data(overlay: Path) -> bool:
    """Whether a configuration is an overlay that gives the place of a data set."""
    return overlay.is_file() and overlay.stem not in _CONFIGS and "dataset_dir" in _config(overlay)


def _config(path: Path, entries: Collection[str] = ()) -> dict[str, Any]:
    """A configuration of a bundle as it is written.

    Raises:
        ValueError: naming the file, if it is not a JSON object or lacks one of these entries.
    """
    return read_object(path, "Correct this configuration of the bundle", entries)


def check_given(methods: Sequence[Method], given: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the user's keys: those for one method are keys of its training, those for all are keys of one at least.

    Args:
        methods: that are compared.
        given: method, as on the command line, or ``all`` -> key -> value.

    Raises:
        ValueError: naming the first method that is not compared, key that is not there, or key that the comparison sets itself.
    """
    unknown = set(given) - {"all"} - {method.key for method in methods}
    if unknown:
        raise ValueError(f"--set names {', '.join(sorted(unknown))}: not among the compared methods")
    for name, keys in given.items():
        trainings = [method.training for method in methods if name in ("all", method.key)]
        for key in keys:
            if key in _SET_HERE:
                raise ValueError(f"--set {name} {key} would have no effect: {_SET_HERE[key]} decides it. Leave out the key")
            if not any(key.split("::")[0] in training for training in trainings):
                keys_there = (part for part, value in trainings[0].items() if isinstance(value, (int, float, str)))
                known = ", ".join(sorted(part for part in keys_there if "_desc_" not in part))
                whose = "none of the compared methods has" if name == "all" else f"{name} has no"
                raise ValueError(
                    f"--set {name} {key}: {whose} key {key!r}" + ("" if name == "all" else f"; the keys are: {known}")
                )


def _given(value: Any) -> Any:
    return _NULL if value is None else value
